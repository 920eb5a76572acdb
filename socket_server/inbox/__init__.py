"""The durable store behind recovery. One protocol (inbox.py), three stores: memory.py, sqlite/, redis/."""
