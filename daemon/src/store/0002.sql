-- In phase waiting: when the worker is started again.
ALTER TABLE workers ADD COLUMN due INTEGER NOT NULL DEFAULT 0;
