"""SQLite behind the store's port, for a single manager: `store` is what it opens, `writer` and `reader` are the two
connections, `file` is what both work on."""
