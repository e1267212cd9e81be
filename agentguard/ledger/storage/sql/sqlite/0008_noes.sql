-- Version 8: a no may come after the approval, until the call is begun.
DROP TRIGGER approvals_transition;
CREATE TRIGGER approvals_transition BEFORE UPDATE ON approvals
WHEN NEW.ended_at IS NULL OR NOT (
  (OLD.state = 'pending' AND NEW.state IN ('denied', 'expired', 'revoked', 'superseded'))
  OR (OLD.state = 'pending' AND NEW.state = 'approved' AND NEW.ended_at < OLD.expires_at)
  OR (OLD.state = 'approved' AND NEW.state IN ('denied', 'expired', 'revoked'))
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of an approval request'); END;
