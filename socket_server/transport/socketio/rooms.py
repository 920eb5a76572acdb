"""Rooms: who receives an emit together. O(1) to enter, leave and disconnect.

The stock manager keeps a two-way dictionary for every connection and walks all rooms when one leaves, so that closing
10,000 connections takes 10,000 x 10,000 steps.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import socketio
from socketio import packet as upstream

from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection


class Rooms(socketio.Manager):
    """The client manager of the Socket.IO server: the connections of the default namespace, and their rooms."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: dict[str, Connection] = {}
        self._members: dict[Any, dict[str, Connection]] = {}

    def add(self, connection: Connection) -> None:
        """Take in a connection."""
        self.connections[connection.sid] = connection

    def remove(self, connection: Connection) -> bool:
        """Let a connection go, with its rooms and pending acknowledgements; False where it was gone already."""
        if self.connections.pop(connection.sid, None) is None:
            return False
        connection.ended = True
        for room in connection.rooms or ():
            self._leave(connection.sid, room)
        connection.rooms = None
        self.callbacks.pop(connection.sid, None)
        return True

    # The upstream interface, as socketio.Server calls it

    def get_namespaces(self) -> list[str]:
        return ["/"]

    def is_connected(self, sid: str, namespace: str) -> bool:
        return sid in self.connections

    def can_disconnect(self, sid: str, namespace: str) -> bool:
        return sid in self.connections

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        connection = self.connections.get(sid)
        return None if connection is None else connection.eio_socket.sid

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        for connection in self.members(room):
            yield connection.sid, connection.eio_socket.sid

    def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
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
        """Send an event to a connection, a room, several, or everybody: encoded once, written to each."""
        arguments = [] if data is None else list(data) if isinstance(data, tuple) else [data]
        skipped = set(skip_sid) if isinstance(skip_sid, list) else {skip_sid}
        members = [connection for connection in self.members(to or room) if connection.sid not in skipped]
        if callback is not None:
            for connection in members:
                number = self._generate_ack_id(connection.sid, callback)
                for packet in _encode(event, arguments, number):
                    connection.send(packet)
            return
        encoded = _encode(event, arguments, None)
        for connection in members:
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


def _encode(event: str, arguments: Iterable[Any], number: int | None) -> list[packets.Packet]:
    encoded = upstream.Packet(upstream.EVENT, data=packets.without_offset([event, *arguments]), id=number).encode()
    parts = encoded if isinstance(encoded, list) else [encoded]
    return [
        packets.Packet(b"4" + part.encode()) if isinstance(part, str) else packets.Packet(bytes(part), binary=True)
        for part in parts
    ]
