"""The Socket.IO event handlers: the edge that a connection meets first."""

from socket_server.events.handlers import ConnectionEvents

__all__ = ["ConnectionEvents"]
