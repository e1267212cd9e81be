-- I8: what earlier runs of a thread did, for a program that is started again after a crash.

CREATE INDEX requests_thread ON requests (thread, tool);
