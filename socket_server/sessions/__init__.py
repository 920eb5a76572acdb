"""Who is connected where."""

from socket_server.sessions.manager import SessionManager, Stats

__all__ = ["SessionManager", "Stats"]
