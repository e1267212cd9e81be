-- The ledger, version 1. Times are integer milliseconds; JSON is RFC 8785 text.
-- Every table but leases, records, nodes and meta is replayed by `agentguard audit verify`.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE records (idx INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE nodes (
  level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, idx)
) WITHOUT ROWID;

CREATE TABLE jobs (
  id TEXT PRIMARY KEY, purpose TEXT NOT NULL, requested_by TEXT NOT NULL, state TEXT NOT NULL,
  epoch INTEGER NOT NULL, opened_at INTEGER NOT NULL, ended_at INTEGER, reason TEXT
) WITHOUT ROWID;
CREATE INDEX jobs_state ON jobs (state);
CREATE TABLE leases (job TEXT PRIMARY KEY, epoch INTEGER NOT NULL, until INTEGER NOT NULL)
  WITHOUT ROWID;

CREATE TABLE credentials (
  id TEXT PRIMARY KEY, job TEXT NOT NULL, agent TEXT NOT NULL, stage TEXT NOT NULL,
  epoch INTEGER NOT NULL, issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX credentials_job ON credentials (job, state);
CREATE INDEX credentials_live ON credentials (expires_at) WHERE state = 'live';

CREATE TABLE requests (
  digest TEXT PRIMARY KEY, content_digest TEXT NOT NULL, call_key TEXT NOT NULL,
  revision INTEGER NOT NULL, job TEXT NOT NULL, thread TEXT NOT NULL, call_id TEXT NOT NULL,
  agent TEXT NOT NULL, stage TEXT, tool TEXT NOT NULL, destination TEXT, body TEXT NOT NULL,
  effect TEXT NOT NULL, policies TEXT NOT NULL, policy_version TEXT NOT NULL,
  reason TEXT NOT NULL, credential TEXT, decided_at INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  UNIQUE (call_key, revision)
) WITHOUT ROWID;
CREATE INDEX requests_call ON requests (job, thread, call_id, ordinal);
CREATE INDEX requests_content ON requests (job, content_digest);

CREATE TABLE approvals (
  request TEXT PRIMARY KEY, job TEXT NOT NULL, count INTEGER NOT NULL, groups TEXT NOT NULL,
  asked_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, state TEXT NOT NULL, ended_at INTEGER,
  question TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX approvals_state ON approvals (state, expires_at);
CREATE INDEX approvals_job ON approvals (job);

CREATE TABLE answers (
  request TEXT NOT NULL, person TEXT NOT NULL, verdict TEXT NOT NULL, answered_as TEXT,
  at INTEGER NOT NULL, key_id TEXT NOT NULL, signature TEXT NOT NULL, received_at INTEGER NOT NULL,
  PRIMARY KEY (request, person)
) WITHOUT ROWID;

CREATE TABLE grants (
  id TEXT PRIMARY KEY, request TEXT NOT NULL UNIQUE, job TEXT NOT NULL, credential TEXT,
  policy_version TEXT NOT NULL, effect TEXT NOT NULL, idempotency_key TEXT NOT NULL,
  state TEXT NOT NULL, issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  claims INTEGER NOT NULL, claimed_at INTEGER, epoch INTEGER, ended_at INTEGER
) WITHOUT ROWID;
CREATE INDEX grants_job ON grants (job, state);
CREATE INDEX grants_live ON grants (expires_at) WHERE state = 'issued';
CREATE INDEX grants_unknown ON grants (id) WHERE state = 'unknown';

CREATE TABLE outcomes (
  grant_id TEXT PRIMARY KEY, status TEXT NOT NULL, text TEXT NOT NULL, assets TEXT NOT NULL,
  state TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE assets (
  sha256 TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, media_type TEXT NOT NULL,
  extension TEXT NOT NULL, size INTEGER NOT NULL, width INTEGER, height INTEGER,
  labels TEXT NOT NULL, terms TEXT NOT NULL, recalled INTEGER NOT NULL, held INTEGER NOT NULL,
  provenance TEXT NOT NULL, version INTEGER NOT NULL, created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE asset_jobs (
  job TEXT NOT NULL, sha256 TEXT NOT NULL, how TEXT NOT NULL, name TEXT NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (job, sha256)
) WITHOUT ROWID;
CREATE TABLE origins (
  sha256 TEXT NOT NULL, source TEXT NOT NULL, tool TEXT, agent TEXT, credential TEXT,
  person TEXT, name TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (sha256, source)
) WITHOUT ROWID;
CREATE TABLE lineage (
  child TEXT NOT NULL, parent TEXT NOT NULL, grant_id TEXT NOT NULL,
  PRIMARY KEY (child, parent, grant_id)
) WITHOUT ROWID;
CREATE TABLE contributors (
  sha256 TEXT NOT NULL, person TEXT NOT NULL, PRIMARY KEY (sha256, person)
) WITHOUT ROWID;
CREATE TABLE queued (
  job TEXT NOT NULL, sha256 TEXT NOT NULL, destination TEXT NOT NULL, grant_id TEXT NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (job, sha256, destination)
) WITHOUT ROWID;
CREATE TABLE reviews (
  job TEXT NOT NULL, sha256 TEXT NOT NULL, grant_id TEXT NOT NULL, findings TEXT NOT NULL,
  clean INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (job, sha256, grant_id)
) WITHOUT ROWID;
CREATE TABLE revealed (job TEXT NOT NULL, label TEXT NOT NULL, PRIMARY KEY (job, label))
  WITHOUT ROWID;
CREATE TABLE receipts (
  grant_id TEXT NOT NULL, sha256 TEXT NOT NULL, destination TEXT NOT NULL,
  location TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (grant_id, sha256)
) WITHOUT ROWID;

-- I8, I9, I10: state moves only along these edges, whoever writes. `born` triggers also refuse a
-- second row of one key, because INSERT OR REPLACE would delete the first without any trigger.

CREATE TRIGGER jobs_born BEFORE INSERT ON jobs
WHEN NEW.state <> 'open' OR NEW.epoch <> 1 OR NEW.ended_at IS NOT NULL OR NEW.reason IS NOT NULL
  OR EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a job is born open, once'); END;
CREATE TRIGGER jobs_transition BEFORE UPDATE ON jobs
WHEN NOT (
  (OLD.state = 'open' AND NEW.state = 'waiting' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NULL)
  OR (OLD.state = 'waiting' AND NEW.state = 'open' AND NEW.epoch = OLD.epoch + 1
    AND NEW.ended_at IS NULL)
  OR (OLD.state IN ('open', 'waiting') AND NEW.state = 'ended' AND NEW.epoch = OLD.epoch
    AND NEW.ended_at IS NOT NULL)
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a job'); END;
CREATE TRIGGER jobs_fixed BEFORE UPDATE OF id, purpose, requested_by, opened_at ON jobs
BEGIN SELECT RAISE(ABORT, 'a job keeps its requester'); END;
CREATE TRIGGER jobs_kept BEFORE DELETE ON jobs
BEGIN SELECT RAISE(ABORT, 'a job is kept'); END;

CREATE TRIGGER credentials_born BEFORE INSERT ON credentials
WHEN NEW.state <> 'live' OR NEW.expires_at <= NEW.issued_at
  OR EXISTS (SELECT 1 FROM credentials WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a credential is born live, once'); END;
CREATE TRIGGER credentials_transition BEFORE UPDATE ON credentials
WHEN NOT (OLD.state = 'live' AND NEW.state IN ('revoked', 'expired'))
BEGIN SELECT RAISE(ABORT, 'illegal transition of a credential'); END;
CREATE TRIGGER credentials_fixed
BEFORE UPDATE OF id, job, agent, stage, epoch, issued_at, expires_at ON credentials
BEGIN SELECT RAISE(ABORT, 'a credential says one thing for good'); END;
CREATE TRIGGER credentials_kept BEFORE DELETE ON credentials
BEGIN SELECT RAISE(ABORT, 'a credential is kept'); END;

CREATE TRIGGER requests_born BEFORE INSERT ON requests
WHEN EXISTS (SELECT 1 FROM requests WHERE digest = NEW.digest)
  OR EXISTS (SELECT 1 FROM requests WHERE call_key = NEW.call_key AND revision = NEW.revision)
BEGIN SELECT RAISE(ABORT, 'a request is decided once'); END;
CREATE TRIGGER requests_fixed BEFORE UPDATE ON requests
BEGIN SELECT RAISE(ABORT, 'a request is frozen'); END;
CREATE TRIGGER requests_kept BEFORE DELETE ON requests
BEGIN SELECT RAISE(ABORT, 'a request is kept'); END;

CREATE TRIGGER approvals_born BEFORE INSERT ON approvals
WHEN NEW.state <> 'pending' OR NEW.count < 1 OR NEW.ended_at IS NOT NULL
  OR EXISTS (SELECT 1 FROM approvals WHERE request = NEW.request)
BEGIN SELECT RAISE(ABORT, 'an approval request is born pending, once'); END;
CREATE TRIGGER approvals_transition BEFORE UPDATE ON approvals
WHEN NEW.ended_at IS NULL OR NOT (
  (OLD.state = 'pending' AND NEW.state IN ('denied', 'expired', 'revoked', 'superseded'))
  OR (OLD.state = 'pending' AND NEW.state = 'approved' AND NEW.ended_at < OLD.expires_at)
  OR (OLD.state = 'approved' AND NEW.state IN ('expired', 'revoked'))
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of an approval request'); END;
CREATE TRIGGER approvals_fixed
BEFORE UPDATE OF request, job, count, groups, asked_at, expires_at, question ON approvals
BEGIN SELECT RAISE(ABORT, 'an approval request asks one thing for good'); END;
CREATE TRIGGER approvals_kept BEFORE DELETE ON approvals
BEGIN SELECT RAISE(ABORT, 'an approval request is kept'); END;

CREATE TRIGGER answers_born BEFORE INSERT ON answers
WHEN EXISTS (SELECT 1 FROM answers WHERE request = NEW.request AND person = NEW.person)
BEGIN SELECT RAISE(ABORT, 'an answer stands'); END;
CREATE TRIGGER answers_fixed BEFORE UPDATE ON answers
BEGIN SELECT RAISE(ABORT, 'an answer stands'); END;
CREATE TRIGGER answers_kept BEFORE DELETE ON answers
BEGIN SELECT RAISE(ABORT, 'an answer stands'); END;

CREATE TRIGGER grants_born BEFORE INSERT ON grants
WHEN NEW.state <> 'issued' OR NEW.claims <> 0 OR NEW.expires_at <= NEW.issued_at
  OR EXISTS (SELECT 1 FROM grants WHERE id = NEW.id)
  OR EXISTS (SELECT 1 FROM grants WHERE request = NEW.request)
BEGIN SELECT RAISE(ABORT, 'a grant is born issued, once for a request'); END;
CREATE TRIGGER grants_transition BEFORE UPDATE ON grants
WHEN NOT (
  (OLD.state = 'issued' AND NEW.state IN ('claimed', 'revoked', 'expired'))
  OR (OLD.state = 'claimed' AND NEW.state IN ('executed', 'failed', 'unknown'))
  OR (OLD.state = 'claimed' AND NEW.state = 'issued' AND OLD.effect = 'none')
  OR (OLD.state = 'failed' AND NEW.state = 'claimed' AND OLD.effect = 'none')
  OR (OLD.state = 'unknown' AND NEW.state IN ('executed', 'failed'))
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a grant'); END;
CREATE TRIGGER grants_claim BEFORE UPDATE ON grants
WHEN NEW.claims <> OLD.claims + (NEW.state = 'claimed')
  OR (NEW.state = 'claimed'
    AND (NEW.claimed_at IS NULL OR NEW.epoch IS NULL OR (NEW.claimed_at >= OLD.expires_at
      AND NOT (OLD.state = 'issued' AND OLD.claims > 0 AND OLD.effect = 'none'))))
BEGIN SELECT RAISE(ABORT, 'a grant is claimed while it lives, and counted'); END;
CREATE TRIGGER grants_fixed
BEFORE UPDATE OF id, request, job, credential, policy_version, effect, idempotency_key, issued_at,
  expires_at ON grants
BEGIN SELECT RAISE(ABORT, 'a grant names one request for good'); END;
CREATE TRIGGER grants_kept BEFORE DELETE ON grants
BEGIN SELECT RAISE(ABORT, 'a grant is kept'); END;

-- Whoever relied on an asset's row notices that it changed by its version.
CREATE TRIGGER assets_transition BEFORE UPDATE ON assets
WHEN NEW.version <> OLD.version + 1 OR NEW.recalled < OLD.recalled OR NEW.sha256 <> OLD.sha256
  OR NEW.id <> OLD.id
BEGIN SELECT RAISE(ABORT, 'illegal transition of an asset'); END;
CREATE TRIGGER assets_born BEFORE INSERT ON assets
WHEN NEW.version <> 1 OR EXISTS (SELECT 1 FROM assets WHERE sha256 = NEW.sha256 OR id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'an asset is registered once'); END;

-- I1: what says who may not approve is never taken back.
CREATE TRIGGER contributors_kept BEFORE DELETE ON contributors
BEGIN SELECT RAISE(ABORT, 'who contributed did so for good'); END;
CREATE TRIGGER contributors_fixed BEFORE UPDATE ON contributors
BEGIN SELECT RAISE(ABORT, 'who contributed did so for good'); END;
CREATE TRIGGER lineage_kept BEFORE DELETE ON lineage
BEGIN SELECT RAISE(ABORT, 'what an asset was made from is kept'); END;
CREATE TRIGGER lineage_fixed BEFORE UPDATE ON lineage
BEGIN SELECT RAISE(ABORT, 'what an asset was made from is kept'); END;

-- I10: the log only grows, one record after the other.
CREATE TRIGGER records_next BEFORE INSERT ON records
WHEN NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM records)
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER records_fixed BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER records_kept BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER nodes_next BEFORE INSERT ON nodes
WHEN EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND idx = NEW.idx)
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER nodes_fixed BEFORE UPDATE ON nodes
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER nodes_kept BEFORE DELETE ON nodes
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
