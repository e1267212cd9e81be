-- Version 9: what ended a job; until then only its reason told, in words that people may write, too.
ALTER TABLE jobs ADD COLUMN ended_by TEXT;

DROP TRIGGER jobs_born;
CREATE TRIGGER jobs_born BEFORE INSERT ON jobs
WHEN NEW.state <> 'open' OR NEW.epoch <> 1 OR NEW.ended_at IS NOT NULL OR NEW.reason IS NOT NULL
  OR NEW.ended_by IS NOT NULL OR EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a job is born open, once'); END;
DROP TRIGGER jobs_transition;
CREATE TRIGGER jobs_transition BEFORE UPDATE ON jobs
WHEN NOT (
  (OLD.state = 'open' AND NEW.state = 'waiting' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NULL AND NEW.ended_by IS NULL)
  OR (OLD.state = 'waiting' AND NEW.state = 'open' AND NEW.epoch = OLD.epoch + 1
    AND NEW.ended_at IS NULL AND NEW.ended_by IS NULL)
  OR (OLD.state IN ('open', 'waiting') AND NEW.state = 'ended' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NOT NULL AND NEW.ended_by IS NOT NULL)
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a job'); END;
