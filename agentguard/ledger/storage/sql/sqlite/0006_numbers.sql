-- I4: how much calls said in numbers after something was revealed to their conversation.

CREATE TABLE numbers (
  request TEXT PRIMARY KEY, job TEXT NOT NULL, thread TEXT NOT NULL, bits INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX numbers_job ON numbers (job);
CREATE INDEX numbers_thread ON numbers (thread) WHERE thread <> '';

CREATE TRIGGER numbers_born BEFORE INSERT ON numbers
WHEN NEW.bits < 1 OR EXISTS (SELECT 1 FROM numbers WHERE request = NEW.request)
BEGIN SELECT RAISE(ABORT, 'what a call said is counted once'); END;
CREATE TRIGGER numbers_fixed BEFORE UPDATE ON numbers
BEGIN SELECT RAISE(ABORT, 'what a call said is kept'); END;
CREATE TRIGGER numbers_kept BEFORE DELETE ON numbers
BEGIN SELECT RAISE(ABORT, 'what a call said is kept'); END;

-- I2: a finding follows what is made from the asset, in every job.
CREATE INDEX reviews_unclean ON reviews (sha256) WHERE clean = 0;
