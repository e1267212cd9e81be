-- Version 8: a no may come after the approval, until the call is begun.
DROP TRIGGER approvals_transition ON approvals;
CREATE TRIGGER approvals_transition BEFORE UPDATE ON approvals FOR EACH ROW
WHEN (NEW.ended_at IS NULL OR NOT (
  (OLD.state = 'pending' AND NEW.state IN ('denied', 'expired', 'revoked', 'superseded'))
  OR (OLD.state = 'pending' AND NEW.state = 'approved' AND NEW.ended_at < OLD.expires_at)
  OR (OLD.state = 'approved' AND NEW.state IN ('denied', 'expired', 'revoked'))
))
EXECUTE FUNCTION refuse('illegal transition of an approval request');
