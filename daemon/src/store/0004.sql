-- Networks that the owner made. Which addresses they have now, the helper knows.
CREATE TABLE networks (
    name       TEXT PRIMARY KEY,
    subnet     TEXT NOT NULL,                -- the range that it is to begin with; empty: any
    internal   INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
