-- One row: the oldest form whose daemons read and write this database. A step that takes something away from them raises it.
CREATE TABLE form (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    oldest INTEGER NOT NULL
) STRICT;
INSERT INTO form (id, oldest) VALUES (1, 5);
