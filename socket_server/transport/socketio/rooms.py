"""Rooms: named groups of connections, for Flask-SocketIO's API. Entering, leaving and disconnecting are O(1).

python-socketio's manager keeps a two-way dictionary for each connection and visits every room when one disconnects, so that
10,000 disconnects take 10,000 x 10,000 steps.
"""

from collections.abc import Iterable
from typing import Any

import socketio
from socketio import packet as upstream

from socket_server.transport.engineio.packets import MESSAGE
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet


class Rooms(socketio.Manager):
    """The connections of the default namespace, and their rooms.

    This server itself uses add(), remove() and `connections`. The rest is called by python-socketio for the functions of
    Flask-SocketIO: emit, send and call (emit), join_room (enter_room), leave_room, close_room, and rooms (get_rooms).
    """

    def __init__(self) -> None:
        super().__init__()
        self.connections: dict[str, Connection] = {}
        self._members: dict[Any, dict[str, Connection]] = {}

    def add(self, connection: Connection) -> None:
        self.connections[connection.sid] = connection

    def remove(self, connection: Connection) -> bool:
        """Remove a connection, its rooms and its pending acknowledgements. Return False if it was removed before."""
        if self.connections.pop(connection.sid, None) is None:
            return False
        connection.ended = True
        for room in connection.rooms or ():
            self._leave(connection.sid, room)
        connection.rooms = None
        self.callbacks.pop(connection.sid, None)
        return True

    def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Raises ValueError if there is no such connection."""
        connection = self.connections.get(sid)
        if connection is None:
            raise ValueError("sid is not connected to requested namespace")
        if connection.rooms is None:
            connection.rooms = set()
        connection.rooms.add(room)
        self._members.setdefault(room, {})[sid] = connection

    def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        connection = self.connections.get(sid)
        if connection is not None and connection.rooms:
            connection.rooms.discard(room)
        self._leave(sid, room)

    def close_room(self, room: Any, namespace: str) -> None:
        for connection in self._members.pop(room, {}).values():
            if connection.rooms:
                connection.rooms.discard(room)

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        connection = self.connections.get(sid)
        return [] if connection is None else [sid, *(connection.rooms or ())]

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **_: Any,
    ) -> None:
        """Send an event to a connection, a room, several of them, or (None) all. Encoded once if there is no callback."""
        arguments = [] if data is None else list(data) if isinstance(data, tuple) else [data]
        skipped = set(skip_sid) if isinstance(skip_sid, list) else {skip_sid}
        members = [connection for connection in self.members(to or room) if connection.sid not in skipped]
        encoded = [] if callback is not None else _encode(event, arguments, None)
        for connection in members:
            if callback is not None:
                encoded = _encode(event, arguments, self._generate_ack_id(connection.sid, callback))
            for packet in encoded:
                connection.send(packet)

    def members(self, room: Any) -> list[Connection]:
        """Return the connections in a room, in any of a list of rooms, of a sid, or (None) all."""
        if room is None:
            return list(self.connections.values())
        if isinstance(room, (list, tuple, set)):
            return list({connection.sid: connection for each in room for connection in self.members(each)}.values())
        found = self._members.get(room)
        if found is not None:
            return list(found.values())
        connection = self.connections.get(room)
        return [] if connection is None else [connection]

    def _leave(self, sid: str, room: Any) -> None:
        members = self._members.get(room)
        if members is not None:
            members.pop(sid, None)
            if not members:
                del self._members[room]


def _encode(event: str, arguments: Iterable[Any], ack_id: int | None) -> list[Packet]:
    encoded = upstream.Packet(upstream.EVENT, data=packets.without_offset([event, *arguments]), id=ack_id).encode()
    parts = encoded if isinstance(encoded, list) else [encoded]
    return [
        Packet(MESSAGE.encode() + part.encode()) if isinstance(part, str) else Packet(bytes(part), binary=True)
        for part in parts
    ]
