-- Events that runs follow from: data that tasks have written (assets), and what was received from outside.

-- Written once: by the commit that took the success of the attempt that wrote the asset, or on arrival.
CREATE TABLE event (
-- sqlite:
    event_no INTEGER PRIMARY KEY AUTOINCREMENT,
-- end
-- postgres:
    event_no BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
-- end
    kind TEXT NOT NULL CHECK (kind IN ('asset', 'received')),
    name TEXT NOT NULL CHECK (name <> ''),
    at_us BIGINT NOT NULL,
    -- Of an asset: whose success it was.
    dag_id TEXT,
    run_id TEXT,
    task_id TEXT,
    map_index BIGINT,
    -- Of a received event: what its sender calls it, and what it says.
    event_id TEXT CHECK (event_id <> ''),
    payload TEXT,
    CHECK ((kind = 'asset') = (dag_id IS NOT NULL)),
    CHECK ((kind = 'asset') = (run_id IS NOT NULL)),
    CHECK ((kind = 'asset') = (task_id IS NOT NULL)),
    CHECK ((kind = 'asset') = (map_index IS NOT NULL)),
    CHECK ((kind = 'received') = (event_id IS NOT NULL)),
    CHECK ((kind = 'received') = (payload IS NOT NULL))
);
-- An event that is sent twice is one event.
CREATE UNIQUE INDEX event_received ON event (name, event_id) WHERE kind = 'received';
CREATE INDEX event_oldest ON event (at_us);

-- Which events the schedule of a DAG follows.
CREATE TABLE listener (
    kind TEXT NOT NULL CHECK (kind IN ('asset', 'received')),
    name TEXT NOT NULL CHECK (name <> ''),
    dag_id TEXT NOT NULL REFERENCES dag (dag_id),
    PRIMARY KEY (kind, name, dag_id)
);
CREATE INDEX listener_of_dag ON listener (dag_id);

-- One per DAG that follows events. `rings` rises with every event for it, in the transaction of the event;
-- `heard` is how many there were when its schedule was last asked: while they differ it must be asked again.
CREATE TABLE bell (
    dag_id TEXT PRIMARY KEY REFERENCES dag (dag_id),
    rings BIGINT NOT NULL,
    heard BIGINT NOT NULL
);
CREATE INDEX bell_rung ON bell (dag_id) WHERE rings <> heard;

-- One per event and DAG that follows it: the event waits, or a run has it. No number decides which events are
-- new, because two that are written at once become visible in any order.
CREATE TABLE dag_event (
    event_no BIGINT NOT NULL REFERENCES event (event_no),
    dag_id TEXT NOT NULL,
    run_no BIGINT REFERENCES dag_run (run_no),
    PRIMARY KEY (event_no, dag_id)
);
CREATE INDEX dag_event_waiting ON dag_event (dag_id) WHERE run_no IS NULL;
CREATE INDEX dag_event_of_run ON dag_event (run_no) WHERE run_no IS NOT NULL;
