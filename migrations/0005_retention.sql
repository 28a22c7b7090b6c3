-- What retention looks for: runs that ended long ago.
CREATE INDEX dag_run_ended ON dag_run (ended_at_us) WHERE state IN ('success', 'failed', 'cancelled');
