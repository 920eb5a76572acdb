"""The small stand-ins for what lies outside a module under test: the session below a connection."""

import itertools
from typing import Any

from socket_server.transport.connection import Connection
from socket_server.transport.handshake import Handshake

_numbers = itertools.count()


class RecordingSession:
    """An Engine.IO session that keeps what it is sent; `broken` ones take nothing, as ended ones do."""

    def __init__(self, *, broken: bool = False, upgraded: bool = True) -> None:
        self.sid = f"engine-{next(_numbers)}"
        self.upgraded = upgraded
        self.websocket = None
        self.broken = broken
        self.packets: list[Any] = []

    def send(self, pkt: Any) -> bool:
        if self.broken:
            return False
        self.packets.append(pkt)
        return True

    @property
    def texts(self) -> list[str]:
        return [packet.text for packet in self.packets]


def handshake(cookie: str = "", authorization: str = "") -> Handshake:
    return Handshake("127.0.0.1", "a test", cookie, authorization)


def connection(
    sid: str | None = None, *, broken: bool = False, cookie: str = "", authorization: str = ""
) -> tuple[Connection, RecordingSession]:
    """Return a connection, and the session that records what it is sent."""
    session = RecordingSession(broken=broken)
    name = f"sid-{next(_numbers)}" if sid is None else sid
    return Connection(name, session, handshake(cookie, authorization)), session
