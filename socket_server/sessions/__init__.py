"""Who is connected where."""

from socket_server.sessions.manager import Audience, SessionManager, Stats

__all__ = ["Audience", "SessionManager", "Stats"]
