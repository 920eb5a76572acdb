"""Socket.IO handlers: the edge where a connection comes in."""

from socket_server.events.handlers import ConnectionEvents

__all__ = ["ConnectionEvents"]
