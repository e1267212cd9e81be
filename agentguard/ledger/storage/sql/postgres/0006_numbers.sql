-- I4: how much calls said in numbers after something was revealed to their conversation.

CREATE TABLE numbers (
  request text PRIMARY KEY, job text NOT NULL, thread text NOT NULL, bits bigint NOT NULL
    CHECK (bits > 0)
);
CREATE INDEX numbers_job ON numbers (job);
CREATE INDEX numbers_thread ON numbers (thread) WHERE thread <> '';

CREATE TRIGGER numbers_fixed BEFORE UPDATE ON numbers FOR EACH ROW
EXECUTE FUNCTION refuse('what a call said is kept');
CREATE TRIGGER numbers_kept BEFORE DELETE ON numbers FOR EACH ROW
EXECUTE FUNCTION refuse('what a call said is kept');
CREATE TRIGGER numbers_whole BEFORE TRUNCATE ON numbers FOR EACH STATEMENT
EXECUTE FUNCTION refuse('numbers is kept');

-- I2: a finding follows what is made from the asset, in every job.
CREATE INDEX reviews_unclean ON reviews (sha256) WHERE clean = 0;
