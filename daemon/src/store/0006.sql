-- Calls that change something, by the key that their caller gave: one that is made again is answered, not done again.
CREATE TABLE calls (
    seq        INTEGER PRIMARY KEY,          -- in the order in which they began
    key        BLOB NOT NULL UNIQUE,
    digest     BLOB NOT NULL,                -- of verb and request: another request with this key is refused
    began_at   INTEGER NOT NULL,
    worker     TEXT NOT NULL,                -- id of the worker that it is about; empty: of none
    generation INTEGER NOT NULL,             -- of that worker, when the call began
    outcome    TEXT NOT NULL,                -- empty while it is under way, done | refused
    answer     BLOB NOT NULL                 -- the reply, or a holdfast.problem.v1.Problem
) STRICT;
