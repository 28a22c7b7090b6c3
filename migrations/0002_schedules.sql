-- Schedules, backfills, and what a scheduler must find again after a crash.

-- A DAG as its file last said, and how far its schedule has come. Whoever moves the row says which version
-- of it was seen; `starts` is bumped to lock the row while runs are counted.
CREATE TABLE dag (
    dag_id TEXT PRIMARY KEY CHECK (dag_id <> ''),
    version BIGINT NOT NULL,
    dag_hash TEXT NOT NULL REFERENCES dag_version (dag_hash),
    max_active_runs BIGINT NOT NULL CHECK (max_active_runs > 0),
    paused BOOLEAN NOT NULL,
    present BOOLEAN NOT NULL,
    first_seen_us BIGINT NOT NULL,
    cursor_us BIGINT,
    next_fire_us BIGINT,
    starts BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX dag_due ON dag (next_fire_us) WHERE next_fire_us IS NOT NULL;

-- A backfill has its own limit of active runs; its runs name it.
CREATE TABLE backfill (
    backfill_id TEXT PRIMARY KEY CHECK (backfill_id <> ''),
    dag_id TEXT NOT NULL,
    max_active_runs BIGINT NOT NULL CHECK (max_active_runs > 0),
    backwards BOOLEAN NOT NULL,
    created_at_us BIGINT NOT NULL,
    starts BIGINT NOT NULL DEFAULT 0
);

ALTER TABLE dag_run ADD COLUMN backfill_id TEXT REFERENCES backfill (backfill_id);
-- When the run must be looked at even if nothing happens to it.
ALTER TABLE dag_run ADD COLUMN next_due_us BIGINT;
CREATE INDEX dag_run_due ON dag_run (next_due_us) WHERE state = 'running' AND next_due_us IS NOT NULL;
CREATE INDEX dag_run_active ON dag_run (dag_id, logical_date_us) WHERE state IN ('queued', 'running');

-- Scheduled instants that a policy left out: never silent. `instants` is null where counting would cost too much.
CREATE TABLE skipped_instants (
    dag_id TEXT NOT NULL,
    from_us BIGINT NOT NULL,
    to_us BIGINT NOT NULL,
    instants BIGINT,
    why TEXT NOT NULL,
    noted_at_us BIGINT NOT NULL,
    PRIMARY KEY (dag_id, from_us, to_us)
);

-- The worker inside a scheduler's process, which dies with it.
ALTER TABLE worker_session ADD COLUMN local BOOLEAN NOT NULL DEFAULT FALSE;
