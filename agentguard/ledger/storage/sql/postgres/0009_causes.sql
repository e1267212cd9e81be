-- Version 9: what ended a job; until then only its reason told, in words that people may write, too.
-- And what revoked an approval request; until then only the time told that a no did it.
ALTER TABLE jobs ADD COLUMN ended_by text;
ALTER TABLE approvals ADD COLUMN revoked_by text;

DROP TRIGGER jobs_born ON jobs;
CREATE TRIGGER jobs_born BEFORE INSERT ON jobs FOR EACH ROW
WHEN (NEW.state <> 'open' OR NEW.epoch <> 1 OR NEW.ended_at IS NOT NULL OR NEW.reason IS NOT NULL
  OR NEW.ended_by IS NOT NULL)
EXECUTE FUNCTION refuse('a job is born open, once');
DROP TRIGGER jobs_transition ON jobs;
CREATE TRIGGER jobs_transition BEFORE UPDATE ON jobs FOR EACH ROW
WHEN (NOT (
  (OLD.state = 'open' AND NEW.state = 'waiting' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NULL AND NEW.ended_by IS NULL)
  OR (OLD.state = 'waiting' AND NEW.state = 'open' AND NEW.epoch = OLD.epoch + 1
    AND NEW.ended_at IS NULL AND NEW.ended_by IS NULL)
  OR (OLD.state IN ('open', 'waiting') AND NEW.state = 'ended' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NOT NULL AND NEW.ended_by IS NOT NULL)
))
EXECUTE FUNCTION refuse('illegal transition of a job');

DROP TRIGGER approvals_born ON approvals;
CREATE TRIGGER approvals_born BEFORE INSERT ON approvals FOR EACH ROW
WHEN (NEW.state <> 'pending' OR NEW.count < 1 OR NEW.ended_at IS NOT NULL
  OR NEW.revoked_by IS NOT NULL)
EXECUTE FUNCTION refuse('an approval request is born pending, once');
DROP TRIGGER approvals_transition ON approvals;
CREATE TRIGGER approvals_transition BEFORE UPDATE ON approvals FOR EACH ROW
WHEN (NEW.ended_at IS NULL OR (NEW.state = 'revoked') <> (NEW.revoked_by IS NOT NULL) OR NOT (
  (OLD.state = 'pending' AND NEW.state IN ('denied', 'expired', 'revoked', 'superseded'))
  OR (OLD.state = 'pending' AND NEW.state = 'approved' AND NEW.ended_at < OLD.expires_at)
  OR (OLD.state = 'approved' AND NEW.state IN ('denied', 'expired', 'revoked'))
))
EXECUTE FUNCTION refuse('illegal transition of an approval request');
