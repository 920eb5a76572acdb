"""The small stand-ins for what lies outside a module under test: the session below a connection."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from socket_server.transport.engineio.handshake import Handshake
from socket_server.transport.socketio.connection import Connection

_numbers = itertools.count()


class RecordingSession:
    """An Engine.IO session that keeps what it is sent; `broken` ones take nothing, as ended ones do.

    on_wait: called while a caller waits until the client has read everything.
    """

    def __init__(self, *, broken: bool = False, upgraded: bool = True, max_backlog: int = 1_000_000) -> None:
        self.sid = f"engine-{next(_numbers)}"
        self.upgraded = upgraded
        self.websocket: Any = None
        self.broken = broken
        self.closed = False
        self.max_backlog = max_backlog
        self.packets: list[Any] = []
        self.closures: list[str] = []  # the reasons
        self.waits = 0
        self.on_wait: Callable[[], object] = lambda: None

    def send(self, pkt: Any) -> bool:
        if self.broken or self.closed:
            return False
        self.packets.append(pkt)
        return True

    def close(self, *, reason: str) -> None:
        self.closed = True
        self.closures.append(reason)

    def wait_until_sent(self) -> bool:
        self.waits += 1
        self.on_wait()
        return not self.closed

    @property
    def texts(self) -> list[str]:
        return [packet.text for packet in self.packets]

    @property
    def events(self) -> list[Any]:
        assert all(text.startswith("42") for text in self.texts)
        return [json.loads(text[2:]) for text in self.texts]


def handshake(cookie: str = "", authorization: str = "") -> Handshake:
    return Handshake("127.0.0.1", "a test", cookie, authorization)


def connection(
    sid: str | None = None, *, broken: bool = False, cookie: str = "", authorization: str = "", max_backlog: int = 1_000_000
) -> tuple[Connection, RecordingSession]:
    """Return a connection, and the session that records what it is sent."""
    session = RecordingSession(broken=broken, max_backlog=max_backlog)
    name = f"sid-{next(_numbers)}" if sid is None else sid
    return Connection(name, session, handshake(cookie, authorization)), session
