-- One row: which start of the daemon this is, and of which boot.
CREATE TABLE meta (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    epoch   INTEGER NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;

-- Intent and state. Times are nanoseconds since 1970, 0 where there is none.
CREATE TABLE workers (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    spec         BLOB NOT NULL,              -- holdfast.daemon.v1.WorkerSpec
    policy       TEXT NOT NULL,              -- no | on-failure[:N] | always | unless-stopped
    phase        TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    goal         TEXT NOT NULL,              -- up | down
    restarts     INTEGER NOT NULL,
    strikes      INTEGER NOT NULL,
    grace_ms     INTEGER NOT NULL,
    nonce        BLOB NOT NULL,              -- of the current generation
    boot_id      TEXT NOT NULL,              -- when the current generation was ordered
    created_at   INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    finished_at  INTEGER NOT NULL,
    shim_pid     INTEGER NOT NULL,
    shim_version TEXT NOT NULL,
    addresses    TEXT NOT NULL,              -- one a line
    ports        TEXT NOT NULL               -- proto host worker address, one a line
) STRICT, WITHOUT ROWID;

-- How a generation ended: one row each, so no end is told twice.
CREATE TABLE ends (
    worker            TEXT NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
    generation        INTEGER NOT NULL,
    kind              TEXT NOT NULL,         -- code | signal | not-started | lost
    value             INTEGER NOT NULL,
    why               TEXT NOT NULL,
    oom               INTEGER NOT NULL,
    finished_at       INTEGER NOT NULL,
    log_bytes         INTEGER NOT NULL,
    log_dropped_bytes INTEGER NOT NULL,
    PRIMARY KEY (worker, generation)
) STRICT, WITHOUT ROWID;

-- Phases entered, and why.
CREATE TABLE history (
    worker     TEXT NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    phase      TEXT NOT NULL,
    why        TEXT NOT NULL,
    PRIMARY KEY (worker, seq)
) STRICT, WITHOUT ROWID;
