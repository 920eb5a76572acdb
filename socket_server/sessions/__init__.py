"""Which connections each user has in this worker."""

from socket_server.sessions.manager import Audience, SessionManager, Stats

__all__ = ["Audience", "SessionManager", "Stats"]
