-- The first schema. One text for SQLite and Postgres: three column types (TEXT, BIGINT, BOOLEAN), times in
-- microseconds (`_us`), JSON and ids as text. What only one of them understands stands between a line
-- `-- sqlite:` or `-- postgres:` and a line `-- end`.

-- One row: fences out a second process on a SQLite home, and numbers the runs.
CREATE TABLE instance (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    epoch BIGINT NOT NULL,
    last_run_no BIGINT NOT NULL
);
INSERT INTO instance (only_row, epoch, last_run_no) VALUES (1, 0, 0);

CREATE TABLE dag_version (
    dag_hash TEXT PRIMARY KEY CHECK (dag_hash <> ''),
    dag_id TEXT NOT NULL CHECK (dag_id <> ''),
    source TEXT NOT NULL
);

-- `schedule` keeps scheduled instants apart from names people choose: neither can take the other's place.
CREATE TABLE dag_run (
    run_no BIGINT PRIMARY KEY,
    dag_id TEXT NOT NULL CHECK (dag_id <> ''),
    run_id TEXT NOT NULL CHECK (run_id <> ''),
    dag_hash TEXT NOT NULL REFERENCES dag_version (dag_hash),
    run_type TEXT NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill')),
    schedule TEXT,
    logical_date_us BIGINT NOT NULL,
    data_interval_start_us BIGINT NOT NULL,
    data_interval_end_us BIGINT NOT NULL,
    params TEXT NOT NULL,
    queued_at_us BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed', 'cancelled')),
    version BIGINT NOT NULL CHECK (version >= 0),
    started_at_us BIGINT,
    ended_at_us BIGINT,
    with_failures BOOLEAN NOT NULL,
    UNIQUE (dag_id, run_id),
    UNIQUE (dag_id, schedule, logical_date_us),
    CHECK ((run_type = 'scheduled') = (schedule IS NOT NULL)),
    CHECK ((state IN ('success', 'failed', 'cancelled')) = (ended_at_us IS NOT NULL)),
    CHECK (state <> 'running' OR started_at_us IS NOT NULL)
);
CREATE INDEX dag_run_unfinished ON dag_run (queued_at_us) WHERE state IN ('queued', 'running');
CREATE INDEX dag_run_newest ON dag_run (queued_at_us);

-- Which state may be written over which by one commit. A step that moves an instance more than once writes
-- the first and the last state, so a pair may stand for a path; what no path makes is missing here.
CREATE TABLE legal_move (
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    PRIMARY KEY (from_state, to_state)
);
INSERT INTO legal_move (from_state, to_state) VALUES
    ('none', 'scheduled'), ('none', 'queued'), ('none', 'running'), ('none', 'success'),
    ('none', 'failed'), ('none', 'skipped'), ('none', 'upstream_failed'), ('none', 'removed'),
    ('none', 'cancelled'),
    ('scheduled', 'none'), ('scheduled', 'queued'), ('scheduled', 'running'), ('scheduled', 'success'),
    ('scheduled', 'failed'), ('scheduled', 'skipped'), ('scheduled', 'upstream_failed'),
    ('scheduled', 'removed'), ('scheduled', 'cancelled'),
    ('queued', 'none'), ('queued', 'scheduled'), ('queued', 'running'), ('queued', 'deferred'),
    ('queued', 'up_for_retry'), ('queued', 'success'), ('queued', 'failed'), ('queued', 'skipped'),
    ('queued', 'upstream_failed'), ('queued', 'removed'), ('queued', 'cancelled'),
    ('running', 'none'), ('running', 'scheduled'), ('running', 'queued'), ('running', 'deferred'),
    ('running', 'up_for_retry'), ('running', 'success'), ('running', 'failed'), ('running', 'skipped'),
    ('running', 'upstream_failed'), ('running', 'removed'), ('running', 'cancelled'),
    ('deferred', 'none'), ('deferred', 'scheduled'), ('deferred', 'queued'), ('deferred', 'running'),
    ('deferred', 'success'), ('deferred', 'failed'), ('deferred', 'skipped'),
    ('deferred', 'upstream_failed'), ('deferred', 'removed'), ('deferred', 'cancelled'),
    ('up_for_retry', 'none'), ('up_for_retry', 'scheduled'), ('up_for_retry', 'queued'),
    ('up_for_retry', 'running'), ('up_for_retry', 'success'), ('up_for_retry', 'failed'),
    ('up_for_retry', 'skipped'), ('up_for_retry', 'upstream_failed'), ('up_for_retry', 'removed'),
    ('up_for_retry', 'cancelled'),
    ('success', 'none'), ('success', 'scheduled'), ('success', 'queued'), ('success', 'running'),
    ('success', 'failed'), ('success', 'skipped'), ('success', 'upstream_failed'), ('success', 'removed'),
    ('success', 'cancelled'),
    ('failed', 'none'), ('failed', 'scheduled'), ('failed', 'queued'), ('failed', 'running'),
    ('failed', 'success'), ('failed', 'skipped'), ('failed', 'upstream_failed'), ('failed', 'removed'),
    ('failed', 'cancelled'),
    ('skipped', 'none'), ('skipped', 'scheduled'), ('skipped', 'queued'), ('skipped', 'running'),
    ('skipped', 'success'), ('skipped', 'failed'), ('skipped', 'upstream_failed'), ('skipped', 'removed'),
    ('skipped', 'cancelled'),
    ('upstream_failed', 'none'), ('upstream_failed', 'scheduled'), ('upstream_failed', 'queued'),
    ('upstream_failed', 'running'), ('upstream_failed', 'success'), ('upstream_failed', 'failed'),
    ('upstream_failed', 'skipped'), ('upstream_failed', 'removed'), ('upstream_failed', 'cancelled'),
    ('removed', 'none'), ('removed', 'scheduled'), ('removed', 'queued'), ('removed', 'running'),
    ('removed', 'success'), ('removed', 'failed'), ('removed', 'skipped'), ('removed', 'upstream_failed'),
    ('removed', 'cancelled'),
    ('cancelled', 'none'), ('cancelled', 'scheduled'), ('cancelled', 'queued'), ('cancelled', 'running'),
    ('cancelled', 'success'), ('cancelled', 'failed'), ('cancelled', 'skipped'),
    ('cancelled', 'upstream_failed'), ('cancelled', 'removed');

CREATE TABLE task_instance (
    run_no BIGINT NOT NULL REFERENCES dag_run (run_no),
    task_id TEXT NOT NULL CHECK (task_id <> ''),
    map_index BIGINT NOT NULL CHECK (map_index >= -1),
    state TEXT NOT NULL CHECK (state IN ('none', 'scheduled', 'queued', 'running', 'deferred', 'up_for_retry',
        'success', 'failed', 'skipped', 'upstream_failed', 'removed', 'cancelled')),
    try_number BIGINT NOT NULL CHECK (try_number >= 0),
    fence BIGINT NOT NULL CHECK (fence >= 0),
    lost_count BIGINT NOT NULL CHECK (lost_count >= 0),
    generation BIGINT NOT NULL CHECK (generation >= 0),
    resume_at_us BIGINT,
    started_at_us BIGINT,
    ended_at_us BIGINT,
    session_id TEXT,
    pool TEXT NOT NULL,
    pool_slots BIGINT NOT NULL CHECK (pool_slots >= 0),
    queue TEXT NOT NULL,
    priority BIGINT NOT NULL,
    PRIMARY KEY (run_no, task_id, map_index),
    CHECK ((state IN ('deferred', 'up_for_retry')) = (resume_at_us IS NOT NULL)),
    CHECK ((state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed', 'cancelled'))
        = (ended_at_us IS NOT NULL)),
    CHECK ((state = 'running') = (session_id IS NOT NULL))
);
CREATE INDEX task_instance_slots ON task_instance (pool) WHERE state IN ('queued', 'running');
CREATE INDEX task_instance_claimable ON task_instance (queue, priority) WHERE state = 'queued';
CREATE INDEX task_instance_held ON task_instance (session_id) WHERE state = 'running';

-- The second, independent check of every move; triggers are the one thing the two spell differently.
-- sqlite:
CREATE TRIGGER task_instance_move BEFORE UPDATE OF state, fence ON task_instance
WHEN (NEW.state <> OLD.state AND NOT EXISTS
        (SELECT 1 FROM legal_move WHERE from_state = OLD.state AND to_state = NEW.state))
    OR NEW.fence < OLD.fence
    OR (NEW.state = 'running' AND OLD.state <> 'running' AND NEW.fence = OLD.fence)
BEGIN
    SELECT RAISE(ABORT, 'illegal move of a task instance');
END;
-- end
-- postgres:
CREATE FUNCTION refuse_illegal_move() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION 'illegal move of a task instance: % (fence %) to % (fence %)',
        OLD.state, OLD.fence, NEW.state, NEW.fence;
END
$body$;
CREATE FUNCTION is_legal_move(old_state TEXT, new_state TEXT) RETURNS BOOLEAN LANGUAGE sql STABLE AS $body$
    SELECT EXISTS (SELECT 1 FROM legal_move WHERE from_state = old_state AND to_state = new_state)
$body$;
CREATE TRIGGER task_instance_move BEFORE UPDATE OF state, fence ON task_instance FOR EACH ROW
WHEN ((NEW.state <> OLD.state AND NOT is_legal_move(OLD.state, NEW.state))
    OR NEW.fence < OLD.fence
    OR (NEW.state = 'running' AND OLD.state <> 'running' AND NEW.fence = OLD.fence))
EXECUTE FUNCTION refuse_illegal_move();
-- end

-- One row per attempt: opened by the claim, closed by what came of it.
CREATE TABLE task_try (
    run_no BIGINT NOT NULL REFERENCES dag_run (run_no),
    task_id TEXT NOT NULL,
    map_index BIGINT NOT NULL,
    fence BIGINT NOT NULL CHECK (fence > 0),
    try_number BIGINT NOT NULL CHECK (try_number > 0),
    session_id TEXT NOT NULL,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT,
    outcome TEXT,
    reason TEXT,
    PRIMARY KEY (run_no, task_id, map_index, fence),
    CHECK ((ended_at_us IS NULL) = (outcome IS NULL)),
    CHECK ((ended_at_us IS NULL) = (reason IS NULL))
);

-- What moved when and why; written with the move. A row without a task is the run's own.
CREATE TABLE journal (
    run_no BIGINT NOT NULL REFERENCES dag_run (run_no),
    version BIGINT NOT NULL,
    place BIGINT NOT NULL,
    task_id TEXT,
    map_index BIGINT NOT NULL,
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    via TEXT NOT NULL,
    fence BIGINT NOT NULL,
    try_number BIGINT NOT NULL,
    reason TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (run_no, version, place)
);

CREATE TABLE task_output (
    run_no BIGINT NOT NULL REFERENCES dag_run (run_no),
    task_id TEXT NOT NULL,
    map_index BIGINT NOT NULL,
    json TEXT NOT NULL,
    list_lengths TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (run_no, task_id, map_index)
);

-- Slots in use are counted from live rows, never stored; `version` is bumped to lock the row.
CREATE TABLE pool (
    pool TEXT PRIMARY KEY CHECK (pool <> ''),
    slots BIGINT NOT NULL CHECK (slots >= 0),
    version BIGINT NOT NULL
);

CREATE TABLE worker_session (
    session_id TEXT PRIMARY KEY CHECK (session_id <> ''),
    opened_at_us BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL,
    closed_at_us BIGINT,
    claims BIGINT NOT NULL
);

CREATE TABLE outbox (
    dedupe_key TEXT PRIMARY KEY,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at_us BIGINT NOT NULL,
    delivered_at_us BIGINT
);
CREATE INDEX outbox_pending ON outbox (created_at_us) WHERE delivered_at_us IS NULL;
