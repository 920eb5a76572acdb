"""Mechanism: the durable log behind recovery. One protocol (inbox.py), three stores: memory, sqlite, redis."""
