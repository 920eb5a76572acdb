"""Socket.IO packets that the server sends (protocol 5): encoded once for all connections.

Source: github.com/socketio/socket.io-protocol.
"""

from typing import Any

import orjson

from socket_server.transport.engineio.packets import Packet

__all__ = ["DISCONNECT", "Packet", "encode_connect", "encode_event", "encode_notification", "without_offset"]

DISCONNECT = Packet(b"41")  # from the default namespace


def encode_connect(sid: str, pid: str) -> Packet:
    """Return the CONNECT reply of the default namespace."""
    return Packet(b"40" + orjson.dumps({"sid": sid, "pid": pid}))


def encode_event(name: str, *arguments: Any) -> Packet:
    """Return an EVENT of the default namespace that carries no offset."""
    return Packet(b"42" + orjson.dumps(without_offset([name, *arguments])))


def without_offset(event: list[Any]) -> list[Any]:
    """Return an event (its name and arguments) whose end no client stores as an offset.

    Clients with connection state recovery store the last element of every event if it is a string, even the event's name.
    """
    return [*event, None] if isinstance(event[-1], str) else event


def encode_notification(notification: bytes, offset: int) -> Packet:
    """Return the event `notification`: the JSON as the back end sent it, and the offset as a string."""
    return Packet(b'42["notification",%b,"%d"]' % (notification, offset))
