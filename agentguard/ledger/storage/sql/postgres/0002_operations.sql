-- Version 2: operations, the work that goes on at a vendor after the call that started it.
-- `name` is a digest of the vendor's id, `assets` the SHA-256 of each asset that was sent.

CREATE TABLE operations (
  job text NOT NULL, name text NOT NULL, grant_id text NOT NULL, tool text NOT NULL,
  destination text, labels text NOT NULL, terms text NOT NULL, contributors text NOT NULL,
  assets text NOT NULL, at bigint NOT NULL, PRIMARY KEY (job, name, grant_id)
);

-- I4: the class of the call that got an id stays with the id; only a claimed call gets one.
CREATE FUNCTION operation_of_a_call() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM grants WHERE id = NEW.grant_id AND job = NEW.job
      AND claims > 0 AND state = 'executed') THEN
    RAISE EXCEPTION USING MESSAGE = 'an operation is started once, by a call that ran',
      ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER operations_born BEFORE INSERT ON operations FOR EACH ROW
EXECUTE FUNCTION operation_of_a_call();
CREATE TRIGGER operations_fixed BEFORE UPDATE ON operations FOR EACH ROW
EXECUTE FUNCTION refuse('what an operation was started with is kept');
CREATE TRIGGER operations_kept BEFORE DELETE ON operations FOR EACH ROW
EXECUTE FUNCTION refuse('what an operation was started with is kept');
CREATE TRIGGER operations_whole BEFORE TRUNCATE ON operations FOR EACH STATEMENT
EXECUTE FUNCTION refuse('operations is kept');
