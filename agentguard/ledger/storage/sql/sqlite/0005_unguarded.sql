-- Version 5: tools that were started past the guard. Each marks its job: later exports ask.

CREATE TABLE unguarded_runs (
  job TEXT NOT NULL, tool TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (job, tool)
) WITHOUT ROWID;

CREATE TRIGGER unguarded_runs_born BEFORE INSERT ON unguarded_runs
WHEN EXISTS (SELECT 1 FROM unguarded_runs WHERE job = NEW.job AND tool = NEW.tool)
BEGIN SELECT RAISE(ABORT, 'an unguarded run is noted once'); END;
CREATE TRIGGER unguarded_runs_fixed BEFORE UPDATE ON unguarded_runs
BEGIN SELECT RAISE(ABORT, 'an unguarded run is kept'); END;
CREATE TRIGGER unguarded_runs_kept BEFORE DELETE ON unguarded_runs
BEGIN SELECT RAISE(ABORT, 'an unguarded run is kept'); END;
