"""Handovers over real Unix sockets, in a real gevent hub. Sender and receiver are this process."""

import array
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import socket as gsocket

from socket_server.transport.http.handover import listener, sender
from socket_server.transport.http.handover.listener import HandoverListener
from socket_server.transport.http.handover.message import ACCEPTED, HandoverRequest
from socket_server.transport.http.handover.sender import HandoverSender
from socket_server.transport.http.handover.worker_tag import new_tag, socket_name
from tests.servers import ROOT, environment
from tests.unit.transport.http.handover.requests import A_REQUEST, ADDRESS, GET, read_request


def send(tag: str, sock: Any, request: HandoverRequest) -> bool:
    return HandoverSender().send_connection(tag, sock, request)


class Host:
    """Keeps the connections that it receives."""

    def __init__(self) -> None:
        self.received: list[tuple[Any, HandoverRequest]] = []
        self.capacity = 100

    def full(self) -> bool:
        return len(self.received) >= self.capacity

    def serve_received(self, sock: Any, request: HandoverRequest) -> None:
        self.received.append((sock, request))


class Receiver:
    """A worker that receives connections, and connections for it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.tag = new_tag()
        self.host = Host()
        self._stack = stack
        self.listener = HandoverListener(self.tag, self.host, max_body_bytes=1_000)
        self.listener.start()

    def connection(self) -> tuple[Any, socket.socket]:
        """Return the sending worker's end of a connection, and the client's."""
        ours, theirs = socket.socketpair()
        self._stack.callback(theirs.close)
        theirs.settimeout(5)
        sending = gsocket.socket(fileno=ours.detach())
        self._stack.callback(sending.close)
        return sending, theirs

    def connect(self) -> Any:
        """Connect to the Unix socket, as any process can."""
        peer = gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM)
        self._stack.callback(peer.close)
        peer.settimeout(5)
        peer.connect(socket_name(self.tag))
        return peer

    def refuses(self, peer: Any) -> bool:
        """Return whether the connection to it is closed without an ACCEPTED."""
        try:
            return not peer.recv(1) and not self.host.received
        except ConnectionResetError:
            return not self.host.received


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with contextlib.ExitStack() as stack:
        made = Receiver(stack)
        yield made
        for sock, _ in made.host.received:
            sock.close()
        made.listener.stop()
        gevent.sleep(0)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("address", [ADDRESS, ("::1", 50_000, 0, 0), ""])
def test_the_clients_address_is_passed(receiver: Receiver, address: Any) -> None:
    mine, _ = receiver.connection()
    assert send(receiver.tag, mine, HandoverRequest.of(address, read_request(GET)))
    gevent.sleep(0)
    assert receiver.host.received[0][1].address == address


# Accepted


def test_a_connection_continues_in_the_other_worker(receiver: Receiver) -> None:
    mine, client = receiver.connection()
    assert send(receiver.tag, mine, A_REQUEST)
    mine.close()
    gevent.sleep(0)
    ((taken, request),) = receiver.host.received
    assert request == A_REQUEST
    taken.sendall(b"answer")
    assert client.recv(100) == b"answer"
    client.sendall(b"next")
    assert taken.recv(100) == b"next"


def test_many_handovers_at_once_keep_their_connections_apart(receiver: Receiver) -> None:
    count = 2 * sender.MAX_CONCURRENT
    receiver.host.capacity = count
    pairs = [receiver.connection() for _ in range(count)]
    requests = [HandoverRequest.of((str(number), 1), read_request(GET)) for number in range(count)]
    sending = [gevent.spawn(send, receiver.tag, mine, request) for (mine, _), request in zip(pairs, requests, strict=True)]
    assert all(each.get(timeout=10) for each in sending)
    for sock, request in receiver.host.received:
        sock.sendall(str(request.address[0]).encode())
    assert [client.recv(100) for _, client in pairs] == [str(number).encode() for number in range(count)]


def test_the_sender_is_not_woken_by_a_connection_it_has_passed(receiver: Receiver) -> None:
    loop = gevent.get_hub().loop

    def watched() -> str:
        return Path(f"/proc/self/fdinfo/{loop.fileno()}").read_text()

    mine, client = receiver.connection()
    number = mine.fileno()
    waiting = gevent.spawn(mine.recv, 10)
    gevent.sleep(0.01)
    client.sendall(b"request")
    waiting.get(timeout=5)
    assert f"tfd: {number:8}" in watched(), "libev keeps it in its set until it is closed"
    assert send(receiver.tag, mine, A_REQUEST)
    assert f"tfd: {number:8}" not in watched()


# Not accepted


def test_a_worker_that_does_not_exist_is_noticed_at_once(receiver: Receiver) -> None:
    mine, client = receiver.connection()
    began = time.monotonic()
    assert not send(new_tag(), mine, A_REQUEST)
    assert time.monotonic() - began < sender.TIMEOUT_S / 2
    mine.sendall(b"sorry")
    assert client.recv(100) == b"sorry"


def test_a_full_worker_does_not_accept(receiver: Receiver) -> None:
    receiver.host.capacity = 0
    mine, client = receiver.connection()
    before = descriptors()
    assert not send(receiver.tag, mine, A_REQUEST)
    gevent.sleep(0)
    assert descriptors() == before
    mine.sendall(b"sorry")
    assert client.recv(100) == b"sorry"


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sender, listener):
        monkeypatch.setattr(module, "TIMEOUT_S", 0.2)


@pytest.fixture
def stopped() -> Iterator[tuple[str, Any]]:
    """The tag of a stopped worker and its listening socket, from which nothing is read."""
    tag = new_tag()
    with gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM) as listening:
        listening.bind(socket_name(tag))
        listening.listen(1)
        yield tag, listening


@pytest.mark.usefixtures("short_timeout")
def test_a_stopped_worker_is_given_up(receiver: Receiver, stopped: tuple[str, Any]) -> None:
    pairs = [receiver.connection() for _ in range(5)]  # more than fit in its backlog
    began = time.monotonic()
    sending = [gevent.spawn(send, stopped[0], mine, A_REQUEST) for mine, _ in pairs]
    assert not any(each.get(timeout=5) for each in sending)
    assert time.monotonic() - began < 2


@pytest.mark.usefixtures("short_timeout")
def test_a_sender_that_has_given_up_cannot_be_accepted(receiver: Receiver, stopped: tuple[str, Any]) -> None:
    mine, _ = receiver.connection()
    sending = gevent.spawn(send, stopped[0], mine, A_REQUEST)
    peer, _ = stopped[1].accept()
    assert sending.get(timeout=5) is False
    with peer, pytest.raises(BrokenPipeError):
        peer.send(ACCEPTED)


@pytest.mark.usefixtures("short_timeout")
def test_an_acceptance_at_the_last_moment_counts(
    receiver: Receiver, stopped: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, _ = receiver.connection()
    real, peers = gsocket.socket.shutdown, []

    def accept_just_before(sock: Any, how: int) -> None:
        peers[0].send(ACCEPTED)
        real(sock, how)

    monkeypatch.setattr(gsocket.socket, "shutdown", accept_just_before)
    sending = gevent.spawn(send, stopped[0], mine, A_REQUEST)
    peers.append(stopped[1].accept()[0])
    with peers[0]:
        assert sending.get(timeout=5) is True


# Anything else at the Unix socket


def with_descriptors(data: bytes, *passed: int) -> tuple[list[bytes], list[tuple[int, int, Any]]]:
    return [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []


MESSAGE = msgspec.msgpack.encode(A_REQUEST)
HEAD = struct.pack("!I", len(MESSAGE))


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (HEAD, b""),
        (HEAD, MESSAGE[:-1]),
        (HEAD[:2], HEAD[2:] + MESSAGE),
        (HEAD, b"\xff" * len(MESSAGE)),
        (HEAD, msgspec.msgpack.encode({"a": 1}).ljust(len(MESSAGE))),
        (struct.pack("!I", 0), b""),
    ],
)
def test_anything_but_a_message_is_refused(receiver: Receiver, head: bytes, rest: bytes) -> None:
    mine, _ = receiver.connection()
    peer = receiver.connect()
    before = descriptors()
    peer.sendmsg(*with_descriptors(head, mine.fileno()))
    with contextlib.suppress(OSError):
        peer.sendall(rest)
        peer.shutdown(socket.SHUT_WR)
    assert receiver.refuses(peer)
    assert descriptors() <= before
    assert send(receiver.tag, mine, A_REQUEST), "and the next one is accepted"


def test_a_message_larger_than_any_request_is_not_read(receiver: Receiver) -> None:
    mine, _ = receiver.connection()
    peer = receiver.connect()
    peer.sendmsg(*with_descriptors(struct.pack("!I", 2**32 - 1), mine.fileno()))
    began = time.monotonic()
    assert receiver.refuses(peer)
    assert time.monotonic() - began < sender.TIMEOUT_S / 2


@pytest.mark.usefixtures("short_timeout")
def test_a_message_that_is_not_complete_in_time_is_refused(receiver: Receiver) -> None:
    mine, _ = receiver.connection()
    peer = receiver.connect()
    peer.sendmsg(*with_descriptors(HEAD, mine.fileno()))
    began = time.monotonic()
    assert receiver.refuses(peer)
    assert time.monotonic() - began < 2


def test_a_connection_without_a_message_leaves_nothing_open(receiver: Receiver) -> None:
    before = descriptors()
    for _ in range(50):
        receiver.connect().close()
    gevent.sleep(0.05)
    assert descriptors() <= before


def test_a_message_without_exactly_one_connection_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    mine, _ = receiver.connection()
    with (tmp_path / "file").open("wb") as file:
        before = descriptors()
        for passed in ((), (file.fileno(),), (mine.fileno(), mine.fileno()), (mine.fileno(),) * 50):
            peer = receiver.connect()
            peer.sendmsg(*with_descriptors(HEAD, *passed))
            with contextlib.suppress(OSError):
                peer.sendall(MESSAGE)
            assert receiver.refuses(peer), passed
            peer.close()
        gevent.sleep(0)
        assert descriptors() <= before


NOBODY_UID = 65_534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")


def as_nobody(script: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-S", "-c", f"import os, socket\nos.setuid({NOBODY_UID})\n{script}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


@only_root
def test_another_user_of_the_machine_can_send_nothing(receiver: Receiver) -> None:
    other = as_nobody(
        f"peer = socket.socket(socket.AF_UNIX)\npeer.connect({socket_name(receiver.tag)!r})\n"
        f"try:\n socket.send_fds(peer, [{HEAD!r}], [peer.fileno()])\n peer.sendall({MESSAGE!r})\n"
        " print(peer.recv(1))\nexcept OSError: print(b'')\n"
    )
    with other:
        while other.poll() is None:
            gevent.sleep(0.01)
        assert other.stdout is not None
        assert other.stdout.read() == "b''\n"
    assert not receiver.host.received


@only_root
def test_another_user_of_the_machine_receives_nothing(receiver: Receiver) -> None:
    tag = new_tag()
    other = as_nobody(
        f"listening = socket.socket(socket.AF_UNIX)\nlistening.bind({socket_name(tag)!r})\n"
        "listening.listen()\nprint(flush=True)\n"
        "peer, _ = listening.accept()\nprint(peer.recv(1_000))\n"
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        assert not send(tag, receiver.connection()[0], A_REQUEST)
        assert other.stdout.read() == "b''\n"
