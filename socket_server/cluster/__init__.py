"""Several nodes as one server, over Redis: who is connected where, and the log that all nodes deliver."""
