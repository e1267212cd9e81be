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
CREATE TABLE leases (job TEXT PRIMARY KEY, epoch INTEGER NOT NULL, until INTEGER NOT NULL)
  WITHOUT ROWID;

CREATE TABLE credentials (
  id TEXT PRIMARY KEY, job TEXT NOT NULL, agent TEXT NOT NULL, stage TEXT NOT NULL,
  epoch INTEGER NOT NULL, issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX credentials_live ON credentials (job, state);

CREATE TABLE requests (
  digest TEXT PRIMARY KEY, content_digest TEXT NOT NULL, call_key TEXT NOT NULL,
  revision INTEGER NOT NULL, job TEXT NOT NULL, thread TEXT NOT NULL, call_id TEXT NOT NULL,
  agent TEXT NOT NULL, stage TEXT, tool TEXT NOT NULL, destination TEXT, body TEXT NOT NULL,
  effect TEXT NOT NULL, policies TEXT NOT NULL, policy_version TEXT NOT NULL,
  reason TEXT NOT NULL, credential TEXT, decided_at INTEGER NOT NULL,
  UNIQUE (call_key, revision)
) WITHOUT ROWID;
CREATE INDEX requests_call ON requests (job, thread, call_id, decided_at);
CREATE INDEX requests_content ON requests (job, content_digest);

CREATE TABLE approvals (
  request TEXT PRIMARY KEY, job TEXT NOT NULL, count INTEGER NOT NULL, groups TEXT NOT NULL,
  asked_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, state TEXT NOT NULL, ended_at INTEGER
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
  grant_id TEXT PRIMARY KEY, destination TEXT NOT NULL, location TEXT NOT NULL,
  sha256 TEXT NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;

-- I8, I10: state moves only along these edges, whoever writes.
CREATE TRIGGER grants_transition BEFORE UPDATE ON grants
WHEN NOT (
  (OLD.state = 'issued' AND NEW.state IN ('claimed', 'revoked', 'expired'))
  OR (OLD.state = 'claimed' AND NEW.state IN ('executed', 'failed', 'unknown'))
  OR (OLD.state = 'claimed' AND NEW.state = 'issued' AND OLD.effect = 'none')
  OR (OLD.state = 'failed' AND NEW.state = 'claimed' AND OLD.effect = 'none')
  OR (OLD.state = 'unknown' AND NEW.state IN ('executed', 'failed'))
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a grant'); END;
CREATE TRIGGER grants_fixed BEFORE UPDATE OF id, request, job, effect, idempotency_key ON grants
BEGIN SELECT RAISE(ABORT, 'a grant names one request for good'); END;
CREATE TRIGGER grants_born BEFORE INSERT ON grants WHEN NEW.state <> 'issued' OR NEW.claims <> 0
BEGIN SELECT RAISE(ABORT, 'a grant is born issued'); END;
CREATE TRIGGER jobs_transition BEFORE UPDATE ON jobs
WHEN OLD.state = 'ended' OR NEW.epoch < OLD.epoch OR NEW.requested_by <> OLD.requested_by
BEGIN SELECT RAISE(ABORT, 'illegal transition of a job'); END;
CREATE TRIGGER credentials_transition BEFORE UPDATE ON credentials
WHEN OLD.state <> 'live' OR NEW.expires_at <> OLD.expires_at OR NEW.agent <> OLD.agent
  OR NEW.stage <> OLD.stage OR NEW.job <> OLD.job
BEGIN SELECT RAISE(ABORT, 'illegal transition of a credential'); END;
CREATE TRIGGER approvals_transition BEFORE UPDATE ON approvals
WHEN OLD.state <> 'pending' AND NOT (OLD.state = 'approved' AND NEW.state IN ('expired', 'revoked'))
BEGIN SELECT RAISE(ABORT, 'illegal transition of an approval request'); END;
CREATE TRIGGER answers_fixed BEFORE UPDATE ON answers
BEGIN SELECT RAISE(ABORT, 'an answer stands'); END;
CREATE TRIGGER answers_kept BEFORE DELETE ON answers
BEGIN SELECT RAISE(ABORT, 'an answer stands'); END;
CREATE TRIGGER requests_fixed BEFORE UPDATE ON requests
BEGIN SELECT RAISE(ABORT, 'a request is frozen'); END;
CREATE TRIGGER records_fixed BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER records_kept BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
