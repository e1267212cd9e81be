-- Version 7: calls that were refused before they became a Request, with what the model was told.
-- A client can't say afterwards that such a call was done (I6).

CREATE TABLE refusals (
  call_key text PRIMARY KEY, job text NOT NULL, thread text NOT NULL, call_id text NOT NULL,
  tool text NOT NULL, reason text NOT NULL, at bigint NOT NULL
);
CREATE INDEX refusals_call ON refusals (job, thread, call_id);

CREATE TRIGGER refusals_fixed BEFORE UPDATE ON refusals FOR EACH ROW
EXECUTE FUNCTION refuse('a refusal is kept');
CREATE TRIGGER refusals_kept BEFORE DELETE ON refusals FOR EACH ROW
EXECUTE FUNCTION refuse('a refusal is kept');
CREATE TRIGGER refusals_whole BEFORE TRUNCATE ON refusals FOR EACH STATEMENT
EXECUTE FUNCTION refuse('refusals is kept');
