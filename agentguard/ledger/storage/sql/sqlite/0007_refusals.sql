-- Version 7: calls that were refused before they became a Request, with what the model was told.
-- A client can't say afterwards that such a call was done (I6).

CREATE TABLE refusals (
  call_key TEXT PRIMARY KEY, job TEXT NOT NULL, thread TEXT NOT NULL, call_id TEXT NOT NULL,
  tool TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX refusals_call ON refusals (job, thread, call_id);

CREATE TRIGGER refusals_fixed BEFORE UPDATE ON refusals
BEGIN SELECT RAISE(ABORT, 'a refusal is kept'); END;
CREATE TRIGGER refusals_kept BEFORE DELETE ON refusals
BEGIN SELECT RAISE(ABORT, 'a refusal is kept'); END;
