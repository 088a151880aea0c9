-- What happened, oldest first. AUTOINCREMENT: a cursor is never given twice, also when its row has gone.
CREATE TABLE events (
    cursor INTEGER PRIMARY KEY AUTOINCREMENT,
    time   INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    name   TEXT NOT NULL,                    -- of the worker or network
    body   BLOB NOT NULL                     -- holdfast.daemon.v1.Event
) STRICT;
