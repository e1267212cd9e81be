-- Version 4: nothing that people wait for reads a whole table.

CREATE INDEX jobs_opened ON jobs (opened_at DESC, id);
CREATE INDEX approvals_asked ON approvals (asked_at DESC, request);
CREATE INDEX assets_created ON assets (created_at DESC, id);
CREATE INDEX lineage_parent ON lineage (parent);
CREATE INDEX asset_jobs_asset ON asset_jobs (sha256);
CREATE INDEX reviews_asset ON reviews (sha256);
CREATE INDEX queued_asset ON queued (sha256);
CREATE INDEX receipts_asset ON receipts (sha256);
