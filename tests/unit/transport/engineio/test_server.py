"""Who has much to send waits until a client has taken it: over a real socket pair, in a real gevent hub."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from socket_server.transport.engineio import frames
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.engineio.polling import PollingQueue
from socket_server.transport.engineio.server import EioSocket, EngineIOServer
from socket_server.transport.engineio.websocket import WebSocket
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.packets import Packet
from tests.unit.fakes import handshake

LIMITS = Limits(max_message_bytes=10_000, send_backlog_bytes=1_000_000, auth_timeout_s=1, events_per_second=20)
LARGE = Packet(b"4" + b"x" * 300_000)


class Sessions:
    """Makes sessions, and waits for their clients in greenlets."""

    def __init__(self) -> None:
        self.server = EngineIOServer(Gate(Origins([]), 100), 25, 60, LIMITS)
        self.endings: list[str] = []
        self.server.handlers.update(disconnect=lambda _, reason: self.endings.append(reason))
        self.clients: list[socket.socket] = []

    def over_websocket(self) -> tuple[EioSocket, socket.socket]:
        session = self.server.open(handshake())
        session.websocket, client = self._websocket(session)
        session.websocket.start()
        return session, client

    def over_polling(self) -> tuple[EioSocket, PollingQueue]:
        session = self.server.open(handshake())
        session.polling = PollingQueue(LIMITS.send_backlog_bytes)
        return session, session.polling

    def probing(self, session: EioSocket) -> socket.socket:
        """Let a WebSocket take over from polling up to the point where the client has to say `5`; return its client."""
        websocket, client = self._websocket(session)
        session.probe(websocket)
        websocket.start()
        session.message(websocket, "2probe")
        return client

    def _websocket(self, session: EioSocket) -> tuple[WebSocket, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        self.clients.append(theirs)
        return WebSocket(ours, session, LIMITS), theirs


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    for session in list(made.server.sockets.values()):
        session.close()
    for client in made.clients:
        client.close()
    gevent.sleep(0.01)


def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        gevent.sleep(0.002)


def read(client: socket.socket, size: int) -> bytes:
    """Return so many bytes."""
    data = b""
    ends = time.monotonic() + 10
    while len(data) < size and time.monotonic() < ends:
        try:
            data += client.recv(65_536)
        except BlockingIOError:
            gevent.sleep(0.002)
    return data


def waiting(session: EioSocket) -> "gevent.Greenlet[[], bool]":
    greenlet = gevent.spawn(session.wait_until_sent)
    gevent.sleep(0.01)
    return greenlet


def take_all(client: socket.socket, greenlet: "gevent.Greenlet[[], bool]") -> None:
    """Read as a client does, until whoever waits for it has seen that."""

    def taken() -> bool:
        try:
            client.recv(65_536)
        except BlockingIOError:
            pass
        return greenlet.ready()

    until(taken)


def outcome(greenlet: "gevent.Greenlet[[], bool]") -> bool:
    result = greenlet.get(timeout=10)
    assert isinstance(result, bool)
    return result


def test_the_ids_of_a_nodes_sessions_begin_with_its_name(sessions: Sessions) -> None:
    sessions.server.sids_begin = "web-1~"
    session, _ = sessions.over_polling()
    assert session.sid.startswith("web-1~")
    assert sessions.server.sockets[session.sid] is session


def test_where_nothing_waits_nobody_waits(sessions: Sessions) -> None:
    for session, _ in (sessions.over_websocket(), sessions.over_polling()):
        assert session.wait_until_sent()
    session, client = sessions.over_websocket()
    session.send(packets.PING_PACKET)
    assert session.wait_until_sent()
    assert read(client, 3) == packets.PING_PACKET.frame


def test_over_a_websocket_it_waits_until_the_kernel_has_taken_all(sessions: Sessions) -> None:
    session, client = sessions.over_websocket()
    assert session.send(LARGE)
    first, second = waiting(session), waiting(session)
    assert not first.ready()
    assert read(client, 1_000)
    gevent.sleep(0.01)
    assert not first.ready()
    read(client, 50_000)
    assert not first.ready()
    take_all(client, first)
    assert outcome(first)
    assert outcome(second)
    # And again: the next page waits for its own.
    assert session.send(LARGE)
    third = waiting(session)
    assert not third.ready()
    take_all(client, third)
    assert outcome(third)


def test_over_polling_it_waits_until_the_client_has_fetched_all(sessions: Sessions) -> None:
    session, polling = sessions.over_polling()
    for _ in range(2):
        session.send(packets.PING_PACKET)
        session.send(LARGE)
        greenlet = waiting(session)
        assert not greenlet.ready()
        assert session.fetch(polling) == [packets.PING_PACKET, LARGE]
        assert outcome(greenlet)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_who_waits_for_a_session_that_ends_is_told(sessions: Sessions, transport: str) -> None:
    session = sessions.over_websocket()[0] if transport == "websocket" else sessions.over_polling()[0]
    session.send(LARGE)
    greenlet = waiting(session)
    session.close(reason="on purpose")
    assert not outcome(greenlet)
    assert not session.wait_until_sent()
    until(lambda: sessions.endings == ["on purpose"])


def test_who_waits_for_a_client_that_vanishes_is_told(sessions: Sessions) -> None:
    session, client = sessions.over_websocket()
    session.send(LARGE)
    greenlet = waiting(session)
    client.close()
    assert not outcome(greenlet)


def test_who_waits_for_a_slow_consumer_is_told(sessions: Sessions) -> None:
    for session, _ in (sessions.over_websocket(), sessions.over_polling()):
        session.send(LARGE)
        greenlet = waiting(session)
        while session.send(LARGE):
            pass
        assert not outcome(greenlet)
        assert session.closed


def test_over_an_upgrade_it_waits_for_the_websocket_to_take_what_polling_did_not(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(LARGE)
    greenlet = waiting(session)
    client = sessions.probing(session)
    assert read(client, len(packets.PROBE_REPLY.frame)) == packets.PROBE_REPLY.frame
    assert not greenlet.ready()
    session.message(session._probe, "5")  # type: ignore[arg-type]
    gevent.sleep(0.01)
    assert session.upgraded
    assert not greenlet.ready()
    take_all(client, greenlet)
    assert outcome(greenlet)


def test_over_an_upgrade_that_takes_it_all_with_it_the_wait_is_over(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(packets.PING_PACKET)
    greenlet = waiting(session)
    client = sessions.probing(session)
    session.message(session._probe, "5")  # type: ignore[arg-type]
    assert outcome(greenlet)
    expected = packets.PROBE_REPLY.frame + packets.PING_PACKET.frame
    assert read(client, len(expected)) == expected


def test_who_waits_for_a_session_that_is_closed_during_its_upgrade_is_told_at_once(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(LARGE)
    greenlet = waiting(session)
    client = sessions.probing(session)
    session.close(reason="on purpose", code=frames.SERVICE_RESTART)
    assert not outcome(greenlet)
    assert session.closed
    client.close()
    until(lambda: sessions.endings == ["on purpose"])


def test_a_sessions_backlog_is_the_one_of_the_limits(sessions: Sessions) -> None:
    assert sessions.over_polling()[0].max_backlog == LIMITS.send_backlog_bytes


def test_a_client_that_is_gone_when_its_handshake_ends_leaves_the_session_free_to_upgrade(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    request = {"REQUEST_METHOD": "GET", "QUERY_STRING": f"EIO=4&transport=websocket&sid={session.sid}"}
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    sessions.server.accept_websocket(request, ours, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"")
    assert not session.probing
    assert not session.closed
