"""The SQLite store: a client in each worker, and the storage process that owns the file."""
