-- The ledger, version 1. Times are integer milliseconds; JSON is RFC 8785 text.
-- Every table but leases, records, nodes, outbox, checkpoints and meta is replayed by
-- `agentguard audit verify`. Opening compares all of this with the catalogue, so every name here is
-- without a schema: the schema of the ledger is the only one on the path.

CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);

CREATE TABLE records (idx bigint PRIMARY KEY, body text NOT NULL);
CREATE TABLE nodes (
  level bigint NOT NULL, idx bigint NOT NULL, hash bytea NOT NULL, PRIMARY KEY (level, idx)
);

-- A transition leaves its records here; one elected sequencer moves them into the log. Ids are not
-- in the order of commits: it deletes exactly the rows that it read.
CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL
);
-- Signed checkpoints, by which processes on other machines follow the log.
CREATE TABLE checkpoints (size bigint PRIMARY KEY, note text NOT NULL);

CREATE TABLE jobs (
  id text PRIMARY KEY, purpose text NOT NULL, requested_by text NOT NULL, state text NOT NULL,
  epoch bigint NOT NULL, opened_at bigint NOT NULL, ended_at bigint, reason text
);
CREATE INDEX jobs_state ON jobs (state);
CREATE TABLE leases (job text PRIMARY KEY, epoch bigint NOT NULL, until bigint NOT NULL);

CREATE TABLE credentials (
  id text PRIMARY KEY, job text NOT NULL, agent text NOT NULL, stage text NOT NULL,
  epoch bigint NOT NULL, issued_at bigint NOT NULL, expires_at bigint NOT NULL,
  state text NOT NULL
);
CREATE INDEX credentials_job ON credentials (job, state);
CREATE INDEX credentials_live ON credentials (expires_at) WHERE state = 'live';

CREATE TABLE requests (
  digest text PRIMARY KEY, content_digest text NOT NULL, call_key text NOT NULL,
  revision bigint NOT NULL, job text NOT NULL, thread text NOT NULL, call_id text NOT NULL,
  agent text NOT NULL, stage text, tool text NOT NULL, destination text, body text NOT NULL,
  effect text NOT NULL, policies text NOT NULL, policy_version text NOT NULL,
  reason text NOT NULL, credential text, decided_at bigint NOT NULL,
  ordinal bigint NOT NULL,
  UNIQUE (call_key, revision)
);
CREATE INDEX requests_call ON requests (job, thread, call_id, ordinal);
CREATE INDEX requests_content ON requests (job, content_digest);

CREATE TABLE approvals (
  request text PRIMARY KEY, job text NOT NULL, count bigint NOT NULL, groups text NOT NULL,
  asked_at bigint NOT NULL, expires_at bigint NOT NULL, state text NOT NULL, ended_at bigint,
  question text NOT NULL
);
CREATE INDEX approvals_state ON approvals (state, expires_at);
CREATE INDEX approvals_job ON approvals (job);

CREATE TABLE answers (
  request text NOT NULL, person text NOT NULL, verdict text NOT NULL, answered_as text,
  at bigint NOT NULL, key_id text NOT NULL, signature text NOT NULL, received_at bigint NOT NULL,
  PRIMARY KEY (request, person)
);

CREATE TABLE grants (
  id text PRIMARY KEY, request text NOT NULL UNIQUE, job text NOT NULL, credential text,
  policy_version text NOT NULL, effect text NOT NULL, idempotency_key text NOT NULL,
  state text NOT NULL, issued_at bigint NOT NULL, expires_at bigint NOT NULL,
  claims bigint NOT NULL, claimed_at bigint, epoch bigint, ended_at bigint
);
CREATE INDEX grants_job ON grants (job, state);
CREATE INDEX grants_live ON grants (expires_at) WHERE state = 'issued';
CREATE INDEX grants_unknown ON grants (id) WHERE state = 'unknown';

CREATE TABLE outcomes (
  grant_id text PRIMARY KEY, status text NOT NULL, text text NOT NULL, assets text NOT NULL,
  state text NOT NULL
);

CREATE TABLE assets (
  sha256 text PRIMARY KEY, id text NOT NULL UNIQUE, media_type text NOT NULL,
  extension text NOT NULL, size bigint NOT NULL, width bigint, height bigint,
  labels text NOT NULL, terms text NOT NULL, recalled bigint NOT NULL, held bigint NOT NULL,
  provenance text NOT NULL, version bigint NOT NULL, created_at bigint NOT NULL
);
CREATE TABLE asset_jobs (
  job text NOT NULL, sha256 text NOT NULL, how text NOT NULL, name text NOT NULL,
  at bigint NOT NULL, PRIMARY KEY (job, sha256)
);
CREATE TABLE origins (
  sha256 text NOT NULL, source text NOT NULL, tool text, agent text, credential text,
  person text, name text NOT NULL, at bigint NOT NULL, PRIMARY KEY (sha256, source)
);
CREATE TABLE lineage (
  child text NOT NULL, parent text NOT NULL, grant_id text NOT NULL,
  PRIMARY KEY (child, parent, grant_id)
);
CREATE TABLE contributors (
  sha256 text NOT NULL, person text NOT NULL, PRIMARY KEY (sha256, person)
);
CREATE TABLE queued (
  job text NOT NULL, sha256 text NOT NULL, destination text NOT NULL, grant_id text NOT NULL,
  at bigint NOT NULL, PRIMARY KEY (job, sha256, destination)
);
CREATE TABLE reviews (
  job text NOT NULL, sha256 text NOT NULL, grant_id text NOT NULL, findings text NOT NULL,
  clean bigint NOT NULL, at bigint NOT NULL, PRIMARY KEY (job, sha256, grant_id)
);
CREATE TABLE revealed (job text NOT NULL, label text NOT NULL, PRIMARY KEY (job, label));
CREATE TABLE receipts (
  grant_id text NOT NULL, sha256 text NOT NULL, destination text NOT NULL,
  location text NOT NULL, at bigint NOT NULL, PRIMARY KEY (grant_id, sha256)
);

-- I8, I9, I10: state moves only along these edges, whoever writes.

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER jobs_born BEFORE INSERT ON jobs FOR EACH ROW
WHEN (NEW.state <> 'open' OR NEW.epoch <> 1 OR NEW.ended_at IS NOT NULL OR NEW.reason IS NOT NULL)
EXECUTE FUNCTION refuse('a job is born open, once');
CREATE TRIGGER jobs_transition BEFORE UPDATE ON jobs FOR EACH ROW
WHEN (NOT (
  (OLD.state = 'open' AND NEW.state = 'waiting' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NULL)
  OR (OLD.state = 'waiting' AND NEW.state = 'open' AND NEW.epoch = OLD.epoch + 1
    AND NEW.ended_at IS NULL)
  OR (OLD.state IN ('open', 'waiting') AND NEW.state = 'ended' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NOT NULL)
))
EXECUTE FUNCTION refuse('illegal transition of a job');
CREATE TRIGGER jobs_fixed
BEFORE UPDATE OF id, purpose, requested_by, opened_at ON jobs FOR EACH ROW
EXECUTE FUNCTION refuse('a job keeps its requester');
CREATE TRIGGER jobs_kept BEFORE DELETE ON jobs FOR EACH ROW
EXECUTE FUNCTION refuse('a job is kept');

CREATE TRIGGER credentials_born BEFORE INSERT ON credentials FOR EACH ROW
WHEN (NEW.state <> 'live' OR NEW.expires_at <= NEW.issued_at)
EXECUTE FUNCTION refuse('a credential is born live, once');
CREATE TRIGGER credentials_transition BEFORE UPDATE ON credentials FOR EACH ROW
WHEN (NOT (OLD.state = 'live' AND NEW.state IN ('revoked', 'expired')))
EXECUTE FUNCTION refuse('illegal transition of a credential');
CREATE TRIGGER credentials_fixed
BEFORE UPDATE OF id, job, agent, stage, epoch, issued_at, expires_at ON credentials FOR EACH ROW
EXECUTE FUNCTION refuse('a credential says one thing for good');
CREATE TRIGGER credentials_kept BEFORE DELETE ON credentials FOR EACH ROW
EXECUTE FUNCTION refuse('a credential is kept');

CREATE TRIGGER requests_fixed BEFORE UPDATE ON requests FOR EACH ROW
EXECUTE FUNCTION refuse('a request is frozen');
CREATE TRIGGER requests_kept BEFORE DELETE ON requests FOR EACH ROW
EXECUTE FUNCTION refuse('a request is kept');

CREATE TRIGGER approvals_born BEFORE INSERT ON approvals FOR EACH ROW
WHEN (NEW.state <> 'pending' OR NEW.count < 1 OR NEW.ended_at IS NOT NULL)
EXECUTE FUNCTION refuse('an approval request is born pending, once');
CREATE TRIGGER approvals_transition BEFORE UPDATE ON approvals FOR EACH ROW
WHEN (NEW.ended_at IS NULL OR NOT (
  (OLD.state = 'pending' AND NEW.state IN ('denied', 'expired', 'revoked', 'superseded'))
  OR (OLD.state = 'pending' AND NEW.state = 'approved' AND NEW.ended_at < OLD.expires_at)
  OR (OLD.state = 'approved' AND NEW.state IN ('expired', 'revoked'))
))
EXECUTE FUNCTION refuse('illegal transition of an approval request');
CREATE TRIGGER approvals_fixed
BEFORE UPDATE OF request, job, count, groups, asked_at, expires_at, question ON approvals
FOR EACH ROW
EXECUTE FUNCTION refuse('an approval request asks one thing for good');
CREATE TRIGGER approvals_kept BEFORE DELETE ON approvals FOR EACH ROW
EXECUTE FUNCTION refuse('an approval request is kept');

CREATE TRIGGER answers_fixed BEFORE UPDATE ON answers FOR EACH ROW
EXECUTE FUNCTION refuse('an answer stands');
CREATE TRIGGER answers_kept BEFORE DELETE ON answers FOR EACH ROW
EXECUTE FUNCTION refuse('an answer stands');

CREATE TRIGGER grants_born BEFORE INSERT ON grants FOR EACH ROW
WHEN (NEW.state <> 'issued' OR NEW.claims <> 0 OR NEW.expires_at <= NEW.issued_at)
EXECUTE FUNCTION refuse('a grant is born issued, once for a request');
CREATE TRIGGER grants_transition BEFORE UPDATE ON grants FOR EACH ROW
WHEN (NOT (
  (OLD.state = 'issued' AND NEW.state IN ('claimed', 'revoked', 'expired'))
  OR (OLD.state = 'claimed' AND NEW.state IN ('executed', 'failed', 'unknown'))
  OR (OLD.state = 'claimed' AND NEW.state = 'issued' AND OLD.effect = 'none')
  OR (OLD.state = 'failed' AND NEW.state = 'claimed' AND OLD.effect = 'none')
  OR (OLD.state = 'unknown' AND NEW.state IN ('executed', 'failed'))
))
EXECUTE FUNCTION refuse('illegal transition of a grant');
CREATE TRIGGER grants_claim BEFORE UPDATE ON grants FOR EACH ROW
WHEN (NEW.claims <> OLD.claims + (NEW.state = 'claimed')::int
  OR (NEW.state = 'claimed'
    AND (NEW.claimed_at IS NULL OR NEW.epoch IS NULL OR (NEW.claimed_at >= OLD.expires_at
      AND NOT (OLD.state = 'issued' AND OLD.claims > 0 AND OLD.effect = 'none')))))
EXECUTE FUNCTION refuse('a grant is claimed while it lives, and counted');
CREATE TRIGGER grants_fixed
BEFORE UPDATE OF id, request, job, credential, policy_version, effect, idempotency_key, issued_at,
  expires_at ON grants
FOR EACH ROW
EXECUTE FUNCTION refuse('a grant names one request for good');
CREATE TRIGGER grants_kept BEFORE DELETE ON grants FOR EACH ROW
EXECUTE FUNCTION refuse('a grant is kept');

-- Whoever relied on an asset's row notices that it changed by its version.
CREATE TRIGGER assets_transition BEFORE UPDATE ON assets FOR EACH ROW
WHEN (NEW.version <> OLD.version + 1 OR NEW.recalled < OLD.recalled OR NEW.sha256 <> OLD.sha256
  OR NEW.id <> OLD.id)
EXECUTE FUNCTION refuse('illegal transition of an asset');
CREATE TRIGGER assets_born BEFORE INSERT ON assets FOR EACH ROW
WHEN (NEW.version <> 1)
EXECUTE FUNCTION refuse('an asset is registered once');

-- I1: what says who may not approve is never taken back.
CREATE TRIGGER contributors_kept BEFORE DELETE ON contributors FOR EACH ROW
EXECUTE FUNCTION refuse('who contributed did so for good');
CREATE TRIGGER contributors_fixed BEFORE UPDATE ON contributors FOR EACH ROW
EXECUTE FUNCTION refuse('who contributed did so for good');
CREATE TRIGGER lineage_kept BEFORE DELETE ON lineage FOR EACH ROW
EXECUTE FUNCTION refuse('what an asset was made from is kept');
CREATE TRIGGER lineage_fixed BEFORE UPDATE ON lineage FOR EACH ROW
EXECUTE FUNCTION refuse('what an asset was made from is kept');

-- I10: the log only grows, one record after the other.
CREATE FUNCTION next_record() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM records) THEN
    RAISE EXCEPTION USING MESSAGE = 'the log is append-only',
      ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER records_next BEFORE INSERT ON records FOR EACH ROW
EXECUTE FUNCTION next_record();
CREATE TRIGGER records_fixed BEFORE UPDATE ON records FOR EACH ROW
EXECUTE FUNCTION refuse('the log is append-only');
CREATE TRIGGER records_kept BEFORE DELETE ON records FOR EACH ROW
EXECUTE FUNCTION refuse('the log is append-only');
CREATE TRIGGER nodes_fixed BEFORE UPDATE ON nodes FOR EACH ROW
EXECUTE FUNCTION refuse('the log is append-only');
CREATE TRIGGER nodes_kept BEFORE DELETE ON nodes FOR EACH ROW
EXECUTE FUNCTION refuse('the log is append-only');
CREATE TRIGGER outbox_fixed BEFORE UPDATE ON outbox FOR EACH ROW
EXECUTE FUNCTION refuse('the log is append-only');

-- TRUNCATE deletes without any trigger on DELETE.

CREATE TRIGGER records_whole BEFORE TRUNCATE ON records FOR EACH STATEMENT
EXECUTE FUNCTION refuse('records is kept');
CREATE TRIGGER nodes_whole BEFORE TRUNCATE ON nodes FOR EACH STATEMENT
EXECUTE FUNCTION refuse('nodes is kept');
CREATE TRIGGER outbox_whole BEFORE TRUNCATE ON outbox FOR EACH STATEMENT
EXECUTE FUNCTION refuse('outbox is kept');
CREATE TRIGGER jobs_whole BEFORE TRUNCATE ON jobs FOR EACH STATEMENT
EXECUTE FUNCTION refuse('jobs is kept');
CREATE TRIGGER credentials_whole BEFORE TRUNCATE ON credentials FOR EACH STATEMENT
EXECUTE FUNCTION refuse('credentials is kept');
CREATE TRIGGER requests_whole BEFORE TRUNCATE ON requests FOR EACH STATEMENT
EXECUTE FUNCTION refuse('requests is kept');
CREATE TRIGGER approvals_whole BEFORE TRUNCATE ON approvals FOR EACH STATEMENT
EXECUTE FUNCTION refuse('approvals is kept');
CREATE TRIGGER answers_whole BEFORE TRUNCATE ON answers FOR EACH STATEMENT
EXECUTE FUNCTION refuse('answers is kept');
CREATE TRIGGER grants_whole BEFORE TRUNCATE ON grants FOR EACH STATEMENT
EXECUTE FUNCTION refuse('grants is kept');
CREATE TRIGGER outcomes_whole BEFORE TRUNCATE ON outcomes FOR EACH STATEMENT
EXECUTE FUNCTION refuse('outcomes is kept');
CREATE TRIGGER assets_whole BEFORE TRUNCATE ON assets FOR EACH STATEMENT
EXECUTE FUNCTION refuse('assets is kept');
CREATE TRIGGER asset_jobs_whole BEFORE TRUNCATE ON asset_jobs FOR EACH STATEMENT
EXECUTE FUNCTION refuse('asset_jobs is kept');
CREATE TRIGGER origins_whole BEFORE TRUNCATE ON origins FOR EACH STATEMENT
EXECUTE FUNCTION refuse('origins is kept');
CREATE TRIGGER lineage_whole BEFORE TRUNCATE ON lineage FOR EACH STATEMENT
EXECUTE FUNCTION refuse('lineage is kept');
CREATE TRIGGER contributors_whole BEFORE TRUNCATE ON contributors FOR EACH STATEMENT
EXECUTE FUNCTION refuse('contributors is kept');
CREATE TRIGGER queued_whole BEFORE TRUNCATE ON queued FOR EACH STATEMENT
EXECUTE FUNCTION refuse('queued is kept');
CREATE TRIGGER reviews_whole BEFORE TRUNCATE ON reviews FOR EACH STATEMENT
EXECUTE FUNCTION refuse('reviews is kept');
CREATE TRIGGER revealed_whole BEFORE TRUNCATE ON revealed FOR EACH STATEMENT
EXECUTE FUNCTION refuse('revealed is kept');
CREATE TRIGGER receipts_whole BEFORE TRUNCATE ON receipts FOR EACH STATEMENT
EXECUTE FUNCTION refuse('receipts is kept');
