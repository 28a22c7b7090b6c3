-- Three more kinds of problems: a gate that refused, a figure that left its past, data that shifted.
-- postgres:
ALTER TABLE problem DROP CONSTRAINT problem_kind_check;
ALTER TABLE problem ADD CONSTRAINT problem_kind_check CHECK (kind IN ('run_failed', 'task_failed', 'poisoned',
    'gate_blocked', 'anomaly', 'shift', 'deadline_missed', 'schedule_stalled', 'import_error', 'worker_lost'));
-- end
-- sqlite:
-- SQLite cannot change a check: both tables are made anew, the one that refers last, and go on with their numbers.
CREATE TABLE number_kept AS SELECT name, seq FROM sqlite_sequence WHERE name IN ('problem', 'outbox');
CREATE TABLE outbox_kept AS SELECT * FROM outbox;
DROP TABLE outbox;
CREATE TABLE problem_kept AS SELECT * FROM problem;
DROP TABLE problem;
CREATE TABLE problem (
    problem_no INTEGER PRIMARY KEY AUTOINCREMENT,
    problem_key TEXT NOT NULL CHECK (problem_key <> ''),
    kind TEXT NOT NULL CHECK (kind IN ('run_failed', 'task_failed', 'poisoned', 'gate_blocked', 'anomaly', 'shift',
        'deadline_missed', 'schedule_stalled', 'import_error', 'worker_lost')),
    dag_id TEXT CHECK (dag_id <> ''),
    subject TEXT CHECK (subject <> ''),
    state TEXT NOT NULL CHECK (state IN ('open', 'resolved')),
    version BIGINT NOT NULL CHECK (version >= 1),
    occurrences BIGINT NOT NULL CHECK (occurrences >= 1),
    opened_at_us BIGINT NOT NULL,
    last_seen_us BIGINT NOT NULL,
    resolved_at_us BIGINT,
    last_run_id TEXT CHECK (last_run_id <> ''),
    summary TEXT NOT NULL,
    error TEXT NOT NULL,
    routes TEXT NOT NULL,
    CHECK ((state = 'resolved') = (resolved_at_us IS NOT NULL)),
    CHECK (occurrences <= version),
    CHECK (dag_id IS NOT NULL OR subject IS NOT NULL)
);
INSERT INTO problem SELECT * FROM problem_kept;
DROP TABLE problem_kept;
CREATE UNIQUE INDEX problem_open ON problem (problem_key) WHERE state = 'open';
CREATE INDEX problem_open_by_dag ON problem (dag_id) WHERE state = 'open';
CREATE INDEX problem_newest ON problem (opened_at_us);
CREATE TABLE outbox (
    letter_no INTEGER PRIMARY KEY AUTOINCREMENT,
    dedupe_key TEXT NOT NULL UNIQUE CHECK (dedupe_key <> ''),
    problem_no BIGINT NOT NULL REFERENCES problem (problem_no),
    event TEXT NOT NULL CHECK (event IN ('open', 'resolved')),
    route TEXT NOT NULL CHECK (route <> ''),
    payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    created_at_us BIGINT NOT NULL,
    attempts BIGINT NOT NULL CHECK (attempts >= 0),
    next_attempt_at_us BIGINT,
    delivered_at_us BIGINT,
    last_error TEXT,
    UNIQUE (problem_no, event, route),
    CHECK ((state = 'pending') = (next_attempt_at_us IS NOT NULL)),
    CHECK ((state = 'delivered') = (delivered_at_us IS NOT NULL)),
    CHECK (state <> 'delivered' OR attempts >= 1),
    CHECK (state <> 'dead' OR last_error IS NOT NULL)
);
INSERT INTO outbox SELECT * FROM outbox_kept;
DROP TABLE outbox_kept;
CREATE INDEX outbox_pending ON outbox (route, letter_no) WHERE state = 'pending';
DELETE FROM sqlite_sequence WHERE name IN ('problem', 'outbox');
INSERT INTO sqlite_sequence SELECT name, seq FROM number_kept;
DROP TABLE number_kept;
-- end
