"""Several nodes as one server, over Redis: who is online on which node, and what all nodes read."""
