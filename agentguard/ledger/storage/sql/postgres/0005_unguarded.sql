-- Version 5: tools that were started past the guard. Each marks its job: later exports ask.

CREATE TABLE unguarded_runs (
  job text NOT NULL, tool text NOT NULL, at bigint NOT NULL, PRIMARY KEY (job, tool)
);

CREATE TRIGGER unguarded_runs_fixed BEFORE UPDATE ON unguarded_runs FOR EACH ROW
EXECUTE FUNCTION refuse('an unguarded run is kept');
CREATE TRIGGER unguarded_runs_kept BEFORE DELETE ON unguarded_runs FOR EACH ROW
EXECUTE FUNCTION refuse('an unguarded run is kept');
CREATE TRIGGER unguarded_runs_whole BEFORE TRUNCATE ON unguarded_runs FOR EACH STATEMENT
EXECUTE FUNCTION refuse('unguarded_runs is kept');
