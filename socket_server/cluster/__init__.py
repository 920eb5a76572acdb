"""Several nodes as one server, over Redis: the registry of connections, and the log that all nodes deliver."""
