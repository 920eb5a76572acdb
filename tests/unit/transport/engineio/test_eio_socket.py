"""Engine.IO sessions over a real socket pair, in a real gevent hub."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from socket_server.transport.engineio import frames, packets
from socket_server.transport.engineio.eio_socket import EioSocket
from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.engineio.packets import Packet
from socket_server.transport.engineio.polling_queue import PollingQueue
from socket_server.transport.engineio.server import EngineIOServer
from socket_server.transport.engineio.websocket import WebSocket
from tests.unit.fakes import handshake

LIMITS = Limits(max_message_bytes=10_000, send_backlog_bytes=1_000_000, auth_timeout_s=1, events_per_second=20)
LARGE = Packet(b"4" + b"x" * 300_000)


class Sessions:
    """Opens sessions of one server, and records why they end."""

    def __init__(self) -> None:
        self.server = EngineIOServer(Gate(Origins([]), 100), 25, 60, LIMITS)
        self.endings: list[str] = []
        self.messages: list[Any] = []
        self.server.handlers.update(
            connect=lambda *_: None,
            message=lambda _, data: self.messages.append(data),
            disconnect=lambda _, reason: self.endings.append(reason),
        )
        self.clients: list[socket.socket] = []

    def over_websocket(self) -> tuple[EioSocket, socket.socket]:
        session = self.server.open(handshake())
        websocket, client = self.websocket(session)
        session.open_websocket(websocket)
        websocket.start()
        return session, client

    def over_polling(self) -> tuple[EioSocket, PollingQueue]:
        session = self.server.open(handshake())
        polling = PollingQueue(LIMITS.send_backlog_bytes)
        session.open_polling(polling)
        return session, polling

    def probing(self, session: EioSocket) -> socket.socket:
        """Upgrade a session up to the point at which the client has to send UPGRADE; return the client's socket."""
        websocket, client = self.websocket(session)
        session.probe(websocket)
        websocket.start()
        session.message(websocket, "2probe")
        return client

    @staticmethod
    def upgrade(session: EioSocket) -> None:
        """Receive the UPGRADE packet of a session that is being upgraded."""
        assert session._upgrade is not None
        session.message(session._upgrade.websocket, "5")

    def websocket(self, session: EioSocket) -> tuple[WebSocket, socket.socket]:
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
        assert time.monotonic() < ends, "the condition did not come"
        gevent.sleep(0.002)


def read(client: socket.socket, size: int) -> bytes:
    """Return this number of bytes."""
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
    """Read what is sent until the greenlet that waits for it has ended."""

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


def test_session_ids_begin_with_the_name_of_the_node(sessions: Sessions) -> None:
    sessions.server.sid_prefix = "web-1~"
    session, _ = sessions.over_polling()
    assert session.sid.startswith("web-1~")
    assert sessions.server.sockets[session.sid] is session


def test_there_is_no_wait_if_nothing_is_unsent(sessions: Sessions) -> None:
    for session, _ in (sessions.over_websocket(), sessions.over_polling()):
        assert session.wait_until_sent()
    session, client = sessions.over_websocket()
    session.send(packets.PING_PACKET)
    assert session.wait_until_sent()
    assert read(client, 3) == packets.PING_PACKET.frame


def test_over_a_websocket_the_wait_lasts_until_the_kernel_has_taken_everything(sessions: Sessions) -> None:
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
    assert session.send(LARGE)
    third = waiting(session)
    assert not third.ready()
    take_all(client, third)
    assert outcome(third)


def test_over_polling_the_wait_lasts_until_the_client_has_fetched_everything(sessions: Sessions) -> None:
    session, polling = sessions.over_polling()
    for _ in range(2):
        session.send(packets.PING_PACKET)
        session.send(LARGE)
        greenlet = waiting(session)
        assert not greenlet.ready()
        assert session.take_unsent(polling) == [packets.PING_PACKET, LARGE]
        assert outcome(greenlet)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_wait_ends_if_the_session_is_closed(sessions: Sessions, transport: str) -> None:
    session = sessions.over_websocket()[0] if transport == "websocket" else sessions.over_polling()[0]
    session.send(LARGE)
    greenlet = waiting(session)
    session.close(reason="on purpose")
    assert not outcome(greenlet)
    assert not session.wait_until_sent()
    until(lambda: sessions.endings == ["on purpose"])


def test_the_wait_ends_if_the_client_disconnects(sessions: Sessions) -> None:
    session, client = sessions.over_websocket()
    session.send(LARGE)
    greenlet = waiting(session)
    client.close()
    assert not outcome(greenlet)


def test_the_wait_ends_if_the_client_is_a_slow_consumer(sessions: Sessions) -> None:
    for session, _ in (sessions.over_websocket(), sessions.over_polling()):
        session.send(LARGE)
        greenlet = waiting(session)
        while session.send(LARGE):
            pass
        assert not outcome(greenlet)
        assert session.closed


def test_after_an_upgrade_the_wait_lasts_until_the_websocket_has_taken_what_was_queued(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(LARGE)
    greenlet = waiting(session)
    client = sessions.probing(session)
    assert read(client, len(packets.PROBE_REPLY.frame)) == packets.PROBE_REPLY.frame
    assert not greenlet.ready()
    sessions.upgrade(session)
    gevent.sleep(0.01)
    assert session.upgraded
    assert not greenlet.ready()
    take_all(client, greenlet)
    assert outcome(greenlet)


def test_the_wait_ends_with_an_upgrade_that_sends_everything(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(packets.PING_PACKET)
    greenlet = waiting(session)
    client = sessions.probing(session)
    sessions.upgrade(session)
    assert outcome(greenlet)
    expected = packets.PROBE_REPLY.frame + packets.PING_PACKET.frame
    assert read(client, len(expected)) == expected


def test_the_wait_ends_at_once_if_the_session_is_closed_during_its_upgrade(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(LARGE)
    greenlet = waiting(session)
    client = sessions.probing(session)
    session.close(reason="on purpose", code=frames.SERVICE_RESTART)
    assert not outcome(greenlet)
    assert session.closed
    client.close()
    until(lambda: sessions.endings == ["on purpose"])


def test_the_largest_backlog_of_a_session_is_send_backlog_bytes(sessions: Sessions) -> None:
    assert sessions.over_polling()[0].max_backlog == LIMITS.send_backlog_bytes


def test_a_session_may_upgrade_again_after_a_client_that_disconnected_in_its_handshake(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    request = {"REQUEST_METHOD": "GET", "QUERY_STRING": f"EIO=4&transport=websocket&sid={session.sid}"}
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    sessions.server.accept_websocket(request, ours, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"")
    assert session.may_upgrade
    assert not session.closed


@pytest.mark.parametrize("queued", [packets.PING_PACKET, LARGE], ids=["one packet", "more than the kernel takes"])
@pytest.mark.parametrize("closing", [False, True], ids=["open", "closed during its upgrade"])
def test_a_session_ends_if_its_websocket_is_lost_while_it_takes_over_what_was_queued(
    sessions: Sessions, closing: bool, queued: Packet
) -> None:
    """The client has stopped polling, so the session cannot go on without the WebSocket: the client reconnects."""
    session, polling = sessions.over_polling()
    for _ in range(3):
        session.send(queued)
    client = sessions.probing(session)
    read(client, len(packets.PROBE_REPLY.frame))
    if closing:
        session.close(reason="on purpose")
    client.close()
    sessions.upgrade(session)
    until(lambda: sessions.endings == ["on purpose" if closing else "transport error"])
    assert polling.ended
    assert not sessions.server.sockets


def test_a_probe_that_is_lost_before_its_answer_leaves_polling_as_it_was(sessions: Sessions) -> None:
    session, polling = sessions.over_polling()
    websocket, client = sessions.websocket(session)
    session.probe(websocket)
    client.close()
    session.message(websocket, "2probe")
    assert session.may_upgrade
    assert not session.upgrading
    assert session.polling is polling


# Closing


def test_a_session_that_is_closed_during_its_upgrade_ends_with_it_and_loses_nothing(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    session.send(packets.PING_PACKET)
    client = sessions.probing(session)
    session.close(reason="on purpose", code=frames.SERVICE_RESTART)
    assert session.closed
    assert sessions.endings == []
    sessions.upgrade(session)
    until(lambda: sessions.endings == ["on purpose"])
    expected = packets.PROBE_REPLY.frame + packets.PING_PACKET.frame + frames.encode_close(frames.SERVICE_RESTART)
    assert read(client, len(expected)) == expected


def test_half_an_upgrade_of_an_unauthenticated_client_ends_in_its_time_to_authenticate(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    sessions.probing(session)
    started = time.monotonic()
    session.close(reason="on purpose")
    until(lambda: sessions.endings == ["on purpose"])
    assert time.monotonic() - started < 1.5
    assert not sessions.server.sockets


def test_an_upgrade_that_is_not_completed_in_time_leaves_polling_as_it_was(sessions: Sessions) -> None:
    session, polling = sessions.over_polling()
    client = sessions.probing(session)
    assert session.upgrading
    until(lambda: not session.upgrading)  # after the time to authenticate
    assert session.may_upgrade
    assert session.polling is polling
    expected = packets.PROBE_REPLY.frame + frames.encode_close(frames.POLICY_VIOLATION, "upgrade timeout")
    assert read(client, len(expected)) == expected


def test_an_aborted_session_ends_at_once_and_keeps_nothing(sessions: Sessions) -> None:
    session, client = sessions.over_websocket()
    polling_session, polling = sessions.over_polling()
    polling.put(packets.PING_PACKET)
    for each in (session, polling_session):
        each.close(abort=True, reason="evicted")
        assert each.closed
        assert each.sid not in sessions.server.departed
    assert client.recv(1) == b""
    until(lambda: sessions.endings == ["evicted"] * 2)


def test_what_a_closed_session_has_not_sent_is_kept_for_its_next_poll(sessions: Sessions) -> None:
    session, polling = sessions.over_polling()
    polling.put(packets.PING_PACKET)
    session.close(reason="on purpose")
    assert session.sid in sessions.server.departed
    assert sessions.server.departed.take(session.sid) == [packets.PING_PACKET]
    assert sessions.server.departed.take(session.sid) == []


def test_a_slow_consumer_over_polling_leaves_nothing_behind(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    while session.send(LARGE):
        pass
    assert sessions.server.departed.take(session.sid) == []


# Receiving


def test_messages_are_handled_in_order_after_the_one_before(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    for number in range(3):
        session.receive(f"4{number}")
    session.receive("b" + "AAEC")
    session.wait_until_handled()
    assert sessions.messages == ["0", "1", "2", b"\x00\x01\x02"]


@pytest.mark.parametrize("packet", ["", "7", "x", "0", "2", "2probe", "b!", "bA"])
def test_a_packet_that_is_not_of_the_protocol_is_a_value_error_or_closes_the_websocket(
    sessions: Sessions, packet: str
) -> None:
    session, _ = sessions.over_polling()
    with pytest.raises(ValueError, match=r".*"):
        session.receive(packet)
    over_websocket, _ = sessions.over_websocket()
    assert over_websocket.websocket is not None
    over_websocket.message(over_websocket.websocket, packet)
    assert over_websocket.closed


def test_a_client_that_sends_too_many_messages_is_closed(sessions: Sessions) -> None:
    session, _ = sessions.over_polling()
    for _ in range(int(LIMITS.event_burst) + 1):
        session.receive("4x")
    assert session.closed
    until(lambda: sessions.endings == ["too many events"])
