-- Version 2: operations, the work that goes on at a vendor after the call that started it.
-- `name` is a digest of the vendor's id, `assets` the SHA-256 of each asset that was sent.

CREATE TABLE operations (
  job TEXT NOT NULL, name TEXT NOT NULL, grant_id TEXT NOT NULL, tool TEXT NOT NULL,
  destination TEXT, labels TEXT NOT NULL, terms TEXT NOT NULL, contributors TEXT NOT NULL,
  assets TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (job, name, grant_id)
) WITHOUT ROWID;

-- I4: the class of the call that got an id stays with the id; only a claimed call gets one.
CREATE TRIGGER operations_born BEFORE INSERT ON operations
WHEN NOT EXISTS (SELECT 1 FROM grants WHERE id = NEW.grant_id AND job = NEW.job
    AND claims > 0 AND state = 'executed')
  OR EXISTS (SELECT 1 FROM operations
    WHERE job = NEW.job AND name = NEW.name AND grant_id = NEW.grant_id)
BEGIN SELECT RAISE(ABORT, 'an operation is started once, by a call that ran'); END;
CREATE TRIGGER operations_fixed BEFORE UPDATE ON operations
BEGIN SELECT RAISE(ABORT, 'what an operation was started with is kept'); END;
CREATE TRIGGER operations_kept BEFORE DELETE ON operations
BEGIN SELECT RAISE(ABORT, 'what an operation was started with is kept'); END;
