-- Problems, and the letters that tell of them. An alert of the first schema knew neither where it was to go
-- nor what would end it, and nothing delivered it: those rows are dropped.
DROP TABLE outbox;

-- One row from the opening to the end of a trouble. Its key names no run, so that what goes wrong again and
-- again is one problem: at most one is open per key.
CREATE TABLE problem (
-- sqlite:
    problem_no INTEGER PRIMARY KEY AUTOINCREMENT,
-- end
-- postgres:
    problem_no BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
-- end
    problem_key TEXT NOT NULL CHECK (problem_key <> ''),
    kind TEXT NOT NULL CHECK (kind IN ('run_failed', 'task_failed', 'poisoned', 'deadline_missed',
        'schedule_stalled', 'import_error', 'worker_lost')),
    dag_id TEXT CHECK (dag_id <> ''),
    subject TEXT CHECK (subject <> ''),
    state TEXT NOT NULL CHECK (state IN ('open', 'resolved')),
    -- Sights in all: 1 says that the row was opened by the write that sees it so.
    version BIGINT NOT NULL CHECK (version >= 1),
    occurrences BIGINT NOT NULL CHECK (occurrences >= 1),
    opened_at_us BIGINT NOT NULL,
    last_seen_us BIGINT NOT NULL,
    resolved_at_us BIGINT,
    last_run_id TEXT CHECK (last_run_id <> ''),
    summary TEXT NOT NULL,
    error TEXT NOT NULL,
    -- The names of those who were told of the opening, a JSON list: the same are told of the end.
    routes TEXT NOT NULL,
    CHECK ((state = 'resolved') = (resolved_at_us IS NOT NULL)),
    CHECK (occurrences <= version),
    CHECK (dag_id IS NOT NULL OR subject IS NOT NULL)
);
CREATE UNIQUE INDEX problem_open ON problem (problem_key) WHERE state = 'open';
CREATE INDEX problem_open_by_dag ON problem (dag_id) WHERE state = 'open';
CREATE INDEX problem_newest ON problem (opened_at_us);

-- One row per letter and route, from the commit that caused it until it is delivered or given up.
-- `next_attempt_at_us` is also the lease of the courier that has it: when it has passed, the letter is anybody's.
-- `attempts` rises at every claim and is the fence of what its courier writes.
CREATE TABLE outbox (
-- sqlite:
    letter_no INTEGER PRIMARY KEY AUTOINCREMENT,
-- end
-- postgres:
    letter_no BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
-- end
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
CREATE INDEX outbox_pending ON outbox (route, letter_no) WHERE state = 'pending';
