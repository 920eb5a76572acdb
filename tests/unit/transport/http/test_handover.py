"""A connection changes workers: over real Unix sockets, in a real gevent hub; both workers are this process."""

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
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http import handover
from socket_server.transport.http.codec import RequestReader
from socket_server.transport.http.handover import HandoverListener, HandoverRequest, new_tag, send_connection, tag_of
from tests.servers import ROOT, environment

BASE = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "203.0.113.7"}
GET = b"GET /socket.io/?EIO=4&transport=polling&sid=a.b HTTP/1.1\r\nHost: x\r\nCookie: a=\xe9\r\n\r\n"
POST = b"POST /socket.io/?sid=%D7%A9 HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n4\x00\xffz"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n0\r\n\r\n"
LAST = b"GET /a HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"
UPGRADE = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ADDRESS = ("203.0.113.7", 50_000)


def parsed(data: bytes) -> dict[str, Any]:
    (environ,) = RequestReader(dict(BASE), lambda _: (1_000_000, None)).feed(data)
    return environ


A_REQUEST = HandoverRequest.of(ADDRESS, parsed(GET))


class Host:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, HandoverRequest]] = []
        self.places = 100

    def full(self) -> bool:
        return len(self.taken) >= self.places

    def take(self, sock: Any, handed: HandoverRequest) -> None:
        self.taken.append((sock, handed))


class Workers:
    """A worker with its door, and connections for it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.tag = new_tag()
        self.host = Host()
        self._stack = stack
        self.taker = HandoverListener(self.tag, self.host, max_body_bytes=1_000)
        self.taker.start()

    def connection(self) -> tuple[Any, socket.socket]:
        """Return a worker's end of a connection, and the client's."""
        ours, theirs = socket.socketpair()
        self._stack.callback(theirs.close)
        theirs.settimeout(5)
        mine = gsocket.socket(fileno=ours.detach())
        self._stack.callback(mine.close)
        return mine, theirs

    def knock(self) -> Any:
        """Connect to the door as any process may."""
        sibling = gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM)
        self._stack.callback(sibling.close)
        sibling.settimeout(5)
        sibling.connect(handover._name(self.tag))
        return sibling

    def is_refused(self, sibling: Any) -> bool:
        """Whether the door is closed without a yes."""
        try:
            return not sibling.recv(1) and not self.host.taken
        except ConnectionResetError:
            return not self.host.taken


@pytest.fixture
def workers() -> Iterator[Workers]:
    with contextlib.ExitStack() as stack:
        made = Workers(stack)
        yield made
        for sock, _ in made.host.taken:
            sock.close()
        made.taker._listener.close()
        gevent.sleep(0)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# Whose session it is


def test_a_session_id_names_its_worker() -> None:
    tag = new_tag()
    assert tag_of(f"u6WdaVySzSaVGvFZAAAA.{tag}") == tag
    assert len({new_tag() for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    "sid",
    [
        "",
        ".",
        "a",
        "u6WdaVySzSaVGvFZAAAA",
        ".0123456789",
        "a.012345678",
        "a.01234567890",
        "a.0123456789\n",
        "a.012345678g",
        "a.012345678F",
        "a.0123456789.",
        "a.../../x",
        "a.\x00123456789",
        "a.٠١٢٣٤٥٦٧٨٩",
    ],
)
def test_what_no_worker_gave_names_none(sid: str) -> None:
    assert tag_of(sid) is None


@given(st.text())
def test_any_text_names_a_worker_or_none(sid: str) -> None:
    tag = tag_of(sid)
    assert tag is None or sid.endswith(f".{tag}")


# What goes along


@pytest.mark.parametrize("data", [GET, POST, CHUNKED, LAST, UPGRADE, UPGRADE + b"\x81\x85frames"])
def test_a_request_is_the_same_in_the_other_worker(data: bytes) -> None:
    before = parsed(data)
    message = msgspec.msgpack.encode(HandoverRequest.of(ADDRESS, before))
    after = msgspec.msgpack.decode(message, type=HandoverRequest).environ(BASE)
    assert after.pop("wsgi.input").read() == before.pop("wsgi.input").read()
    assert after == before


HEADER_NAME = st.text("abcXYZ-019", min_size=1, max_size=12).map(lambda name: f"X-{name}".encode())
HEADER_VALUE = st.binary(max_size=30).map(lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F))


@given(
    st.dictionaries(HEADER_NAME, HEADER_VALUE, max_size=8),
    st.text("abc/%=&?.1", max_size=30).map(str.encode),
    st.binary(max_size=100),
)
def test_any_request_is_the_same_in_the_other_worker(headers: dict[bytes, bytes], query: bytes, body: bytes) -> None:
    head = b"".join(b"%b: %b\r\n" % header for header in headers.items())
    test_a_request_is_the_same_in_the_other_worker(
        b"POST /socket.io/?%b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (query, head, len(body), body)
    )


@pytest.mark.parametrize("address", [ADDRESS, ("::1", 50_000, 0, 0), ""])
def test_the_clients_address_goes_along(workers: Workers, address: Any) -> None:
    mine, _ = workers.connection()
    assert send_connection(workers.tag, mine, HandoverRequest.of(address, parsed(GET)))
    gevent.sleep(0)
    assert workers.host.taken[0][1].address == address


# Taken


def test_a_connection_goes_on_in_the_other_worker(workers: Workers) -> None:
    mine, client = workers.connection()
    assert send_connection(workers.tag, mine, A_REQUEST)
    mine.close()
    gevent.sleep(0)
    ((taken, handed),) = workers.host.taken
    assert handed == A_REQUEST
    taken.sendall(b"answer")
    assert client.recv(100) == b"answer"
    client.sendall(b"next")
    assert taken.recv(100) == b"next"


def test_many_at_once_each_go_where_they_belong(workers: Workers) -> None:
    count = 2 * handover.MAX_UNDER_WAY
    workers.host.places = count
    pairs = [workers.connection() for _ in range(count)]
    messages = [HandoverRequest.of((str(number), 1), parsed(GET)) for number in range(count)]
    giving = [
        gevent.spawn(send_connection, workers.tag, mine, handed) for (mine, _), handed in zip(pairs, messages, strict=True)
    ]
    assert all(each.get(timeout=10) for each in giving)
    for sock, handed in workers.host.taken:
        sock.sendall(str(handed.address[0]).encode())
    assert [client.recv(100) for _, client in pairs] == [str(number).encode() for number in range(count)]


def test_who_gave_a_connection_away_is_not_woken_by_it_any_more(workers: Workers) -> None:
    loop = gevent.get_hub().loop

    def watched() -> str:
        return Path(f"/proc/self/fdinfo/{loop.fileno()}").read_text()

    mine, client = workers.connection()
    number = mine.fileno()
    waiting = gevent.spawn(mine.recv, 10)
    gevent.sleep(0.01)
    client.sendall(b"request")
    waiting.get(timeout=5)
    assert f"tfd: {number:8}" in watched(), "libev keeps it until it is closed"
    assert send_connection(workers.tag, mine, A_REQUEST)
    assert f"tfd: {number:8}" not in watched()


# Not taken


def test_where_there_is_no_such_worker_that_is_known_at_once(workers: Workers) -> None:
    mine, client = workers.connection()
    began = time.monotonic()
    assert not send_connection(new_tag(), mine, A_REQUEST)
    assert time.monotonic() - began < handover.TAKE_S / 2
    mine.sendall(b"sorry")
    assert client.recv(100) == b"sorry"


def test_a_worker_without_a_place_does_not_take_it(workers: Workers) -> None:
    workers.host.places = 0
    mine, client = workers.connection()
    before = descriptors()
    assert not send_connection(workers.tag, mine, A_REQUEST)
    gevent.sleep(0)
    assert descriptors() == before
    mine.sendall(b"sorry")
    assert client.recv(100) == b"sorry"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "TAKE_S", 0.2)


@pytest.fixture
def silent() -> Iterator[tuple[str, Any]]:
    """A worker's tag and its listening socket, from which nothing is read: the worker is stopped."""
    tag = new_tag()
    with gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM) as listener:
        listener.bind(handover._name(tag))
        listener.listen(1)
        yield tag, listener


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_is_stopped_is_given_up(workers: Workers, silent: tuple[str, Any]) -> None:
    pairs = [workers.connection() for _ in range(5)]  # more than can wait at its door
    began = time.monotonic()
    giving = [gevent.spawn(send_connection, silent[0], mine, A_REQUEST) for mine, _ in pairs]
    assert not any(each.get(timeout=5) for each in giving)
    assert time.monotonic() - began < 2


@pytest.mark.usefixtures("impatient")
def test_who_has_given_up_cannot_be_answered_any_more(workers: Workers, silent: tuple[str, Any]) -> None:
    mine, _ = workers.connection()
    giving = gevent.spawn(send_connection, silent[0], mine, A_REQUEST)
    sibling, _ = silent[1].accept()
    assert giving.get(timeout=5) is False
    with sibling, pytest.raises(BrokenPipeError):
        sibling.send(handover._TAKEN)


@pytest.mark.usefixtures("impatient")
def test_an_answer_at_the_last_moment_counts(
    workers: Workers, silent: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, _ = workers.connection()
    real, siblings = gsocket.socket.shutdown, []

    def answered_just_before(sock: Any, how: int) -> None:
        siblings[0].send(handover._TAKEN)
        real(sock, how)

    monkeypatch.setattr(gsocket.socket, "shutdown", answered_just_before)
    giving = gevent.spawn(send_connection, silent[0], mine, A_REQUEST)
    siblings.append(silent[1].accept()[0])
    with siblings[0]:
        assert giving.get(timeout=5) is True


# Strangers at the door


def passing(data: bytes, *passed: int) -> tuple[list[bytes], list[tuple[int, int, Any]]]:
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
def test_what_is_no_message_is_not_taken(workers: Workers, head: bytes, rest: bytes) -> None:
    mine, _ = workers.connection()
    sibling = workers.knock()
    before = descriptors()
    sibling.sendmsg(*passing(head, mine.fileno()))
    with contextlib.suppress(OSError):
        sibling.sendall(rest)
        sibling.shutdown(socket.SHUT_WR)
    assert workers.is_refused(sibling)
    assert descriptors() <= before
    assert send_connection(workers.tag, mine, A_REQUEST), "and the next one is"


def test_a_message_larger_than_any_request_is_not_even_read(workers: Workers) -> None:
    mine, _ = workers.connection()
    sibling = workers.knock()
    sibling.sendmsg(*passing(struct.pack("!I", 2**32 - 1), mine.fileno()))
    began = time.monotonic()
    assert workers.is_refused(sibling)
    assert time.monotonic() - began < handover.TAKE_S / 2


@pytest.mark.usefixtures("impatient")
def test_a_message_that_trickles_in_is_not_waited_for(workers: Workers) -> None:
    mine, _ = workers.connection()
    sibling = workers.knock()
    sibling.sendmsg(*passing(HEAD, mine.fileno()))
    began = time.monotonic()
    assert workers.is_refused(sibling)
    assert time.monotonic() - began < 2


def test_who_comes_and_goes_leaves_nothing(workers: Workers) -> None:
    before = descriptors()
    for _ in range(50):
        workers.knock().close()
    gevent.sleep(0.05)
    assert descriptors() <= before


def test_a_message_without_a_connection_is_not_taken(workers: Workers, tmp_path: Path) -> None:
    mine, _ = workers.connection()
    with (tmp_path / "file").open("wb") as file:
        before = descriptors()
        for passed in ((), (file.fileno(),), (mine.fileno(), mine.fileno()), (mine.fileno(),) * 50):
            sibling = workers.knock()
            sibling.sendmsg(*passing(HEAD, *passed))
            with contextlib.suppress(OSError):
                sibling.sendall(MESSAGE)
            assert workers.is_refused(sibling), passed
            sibling.close()
        gevent.sleep(0)
        assert descriptors() <= before


NOBODY = 65_534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def as_nobody(script: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-S", "-c", f"import os, socket\nos.setuid({NOBODY})\n{script}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


@only_root
def test_another_user_of_the_machine_gives_nothing(workers: Workers) -> None:
    stranger = as_nobody(
        f"sibling = socket.socket(socket.AF_UNIX)\nsibling.connect({handover._name(workers.tag)!r})\n"
        f"try:\n socket.send_fds(sibling, [{HEAD!r}], [sibling.fileno()])\n sibling.sendall({MESSAGE!r})\n"
        " print(sibling.recv(1))\nexcept OSError: print(b'')\n"
    )
    with stranger:
        while stranger.poll() is None:
            gevent.sleep(0.01)
        assert stranger.stdout is not None
        assert stranger.stdout.read() == "b''\n"
    assert not workers.host.taken


@only_root
def test_another_user_of_the_machine_gets_nothing(workers: Workers) -> None:
    tag = new_tag()
    stranger = as_nobody(
        f"door = socket.socket(socket.AF_UNIX)\ndoor.bind({handover._name(tag)!r})\ndoor.listen()\nprint(flush=True)\n"
        "sibling, _ = door.accept()\nprint(sibling.recv(1_000))\n"
    )
    with stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        assert not send_connection(tag, workers.connection()[0], A_REQUEST)
        assert stranger.stdout.read() == "b''\n"
