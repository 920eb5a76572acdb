"""Several workers on one port: a request that names another's session goes there, and the client's connection with it.

A session's id ends in the tag of its worker, and each worker listens on a Unix socket whose name holds its tag. Over it a
sibling passes the connection itself (its file descriptor, SCM_RIGHTS) and the request that it has read from it, as parsed.
The taker goes on as if it had accepted that connection; the giver keeps nothing of it.

The names are abstract (unix(7)): they leave no file behind, need no directory that can be written, and end with their
process. Anyone on the machine may try one, so both ends ask the kernel who the other is, and deal with their own user only.
"""

import contextlib
import errno
import io
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakValueDictionary

import gevent
import msgspec
from gevent import socket
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original
from gevent.pool import Pool

from socket_server.transport.http.codec import MAX_HEAD_BYTES

# A sibling that has not taken a connection by then is as good as dead: the client hears that its session is unknown, and
# starts anew. Where it really is dead that is known at once; this is for one that is stopped, or far behind.
TAKE_S = 2.0

# Connections under way to one worker, from each of the others: each costs file descriptors. More wait for their turn.
MAX_UNDER_WAY = 128

# What a message may have beside the request's body and head: frames behind a WebSocket handshake, names of variables.
_MAX_OVERHEAD_BYTES = 65_536

_TAG_BYTES = 5
_SID = re.compile(rf".+\.([0-9a-f]{{{2 * _TAG_BYTES}}})")

_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")  # SO_PEERCRED: pid, uid, gid
_TAKEN = b"\x06"

# What of an environment comes from the client, beside its headers. All else the taker knows by itself.
_VARIABLES = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "PATH_INFO",
        "QUERY_STRING",
        "RAW_URI",
        "REQUEST_METHOD",
        "SERVER_PROTOCOL",
    }
)

Address = tuple[str | int, ...] | str  # as accept() gives it; of a Unix socket a text


class HandoverRequest(msgspec.Struct, frozen=True, array_like=True):
    """What goes with a connection: its client's address, and the request to answer, as http_codec has parsed it."""

    address: Address
    variables: dict[str, str]
    body: bytes
    keep_alive: bool
    rest: bytes | None  # what came behind a WebSocket handshake; None: it is none

    @classmethod
    def of(cls, address: Address, environ: Mapping[str, Any]) -> "HandoverRequest":
        return cls(
            address,
            {name: text for name, text in environ.items() if name in _VARIABLES or name.startswith("HTTP_")},
            environ["socket_server.body"],
            environ["socket_server.keep_alive"],
            environ.get("socket_server.rest"),
        )

    def environ(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request's environment. base: what every environment of this connection holds."""
        environ = {
            **base,
            **self.variables,
            "wsgi.input": io.BytesIO(self.body),
            "socket_server.body": self.body,
            "socket_server.keep_alive": self.keep_alive,
        }
        if self.rest is not None:
            environ["socket_server.rest"] = self.rest
        return environ


def new_tag() -> str:
    """Return a tag for a worker, which no other process has."""
    return secrets.token_hex(_TAG_BYTES)


def tag_of(sid: str) -> str | None:
    """Return the tag of the worker that gave this session id; None: no worker did."""
    match = _SID.fullmatch(sid)
    return match[1] if match else None


# Giving

# By tag, for as long as somebody gives: a worker that is stopped holds up what is for it, and nothing else.
_giving: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()


def send_connection(tag: str, sock: Any, request: HandoverRequest) -> bool:
    """Give a connection to the worker with this tag; return whether that has taken it, which is final.

    sock: gevent's. Where it was taken it has to be closed here, without a word more.
    """
    turn = _giving.setdefault(tag, BoundedSemaphore(MAX_UNDER_WAY))
    if not turn.acquire(timeout=TAKE_S):
        return False
    try:
        taken = _give(tag, sock.fileno(), request)
    finally:
        turn.release()
    if taken:
        _leave_loop(sock.fileno())
    return taken


def _give(tag: str, descriptor: int, request: HandoverRequest) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sibling:
        sibling.settimeout(TAKE_S)
        try:
            _connect(sibling, tag)
            if not _same_user(sibling):
                return False
            body = msgspec.msgpack.encode(request)
            message = _LENGTH.pack(len(body)) + body
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
            sent = sibling.sendmsg([message], rights)
            sibling.sendall(memoryview(message)[sent:])
            return bool(sibling.recv(1) == _TAKEN)
        except TimeoutError:
            # From here on it cannot take it any more, but it may have done so at the last moment.
            with contextlib.suppress(OSError):
                sibling.shutdown(socket.SHUT_RDWR)
                return bool(sibling.recv(1) == _TAKEN)
        except OSError:
            pass  # it is not there, or has no place
        return False


def _connect(sibling: Any, tag: str) -> None:
    ends = time.monotonic() + TAKE_S
    while (error := sibling._sock.connect_ex(_name(tag))) == errno.EAGAIN and time.monotonic() < ends:
        gevent.sleep(0.01)  # as many as may are waiting there
    if error:
        raise OSError(error, os.strerror(error))


def _name(tag: str) -> str:
    return f"\0socket-server-{os.geteuid()}-{tag}"


def _same_user(sock: Any) -> bool:
    """Whether the process at the other end runs as this one's user."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())


def _leave_loop(descriptor: int) -> None:
    """Take a descriptor, whose open file another process has too now, out of the event loop's epoll set.

    libev leaves that to close(), which does it only where nobody else has the file open. Its events would go on waking this
    process, and libev, which no longer knows it, would build the whole set anew each time.
    """
    loop = gevent.get_hub().loop
    descriptor_of_set = loop.fileno()
    if loop.backend == "epoll" and descriptor_of_set is not None:
        epoll = get_original("select", "epoll").fromfd(os.dup(descriptor_of_set))
        with contextlib.closing(epoll), contextlib.suppress(OSError):  # it was never waited for
            epoll.unregister(descriptor)


# Taking


class Host(Protocol):
    """Who serves what is taken."""

    def full(self) -> bool:
        """Whether it has no place left."""

    def take(self, sock: Any, request: HandoverRequest) -> None:
        """Serve a connection from this request on, and close it in the end. Returns at once."""


class HandoverListener:
    """This worker's door for its siblings."""

    def __init__(self, tag: str, host: Host, max_body_bytes: int) -> None:
        """max_body_bytes: of a request that names a session. Raises OSError where there can be no such door."""
        self._host = host
        self._max_bytes = max_body_bytes + MAX_HEAD_BYTES + _MAX_OVERHEAD_BYTES
        self._taking = Pool(MAX_UNDER_WAY)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(_name(tag))
        self._listener.listen(MAX_UNDER_WAY)

    def start(self) -> None:
        """Take connections, until the process ends."""
        gevent.spawn(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sibling, _ = self._listener.accept()
            except OSError:  # no file descriptor is left: worker.Server says so
                gevent.sleep(0.1)
            else:
                self._taking.spawn(self._take, sibling)

    def _take(self, sibling: Any) -> None:
        with contextlib.closing(sibling), contextlib.ExitStack() as unwanted:
            try:
                with gevent.Timeout(TAKE_S):
                    descriptor, request = self._receive(sibling, unwanted)
                if self._host.full():
                    return
                # Who reads this has given the connection away; who waits no longer keeps it, and this fails.
                sibling.send(_TAKEN)
            except (OSError, ValueError, msgspec.MsgspecError, gevent.Timeout):
                return  # it is no sibling, or has given up
            unwanted.pop_all()
            self._host.take(socket.socket(fileno=descriptor), request)

    def _receive(self, sibling: Any, unwanted: contextlib.ExitStack) -> tuple[int, HandoverRequest]:
        """Return a connection's file descriptor, to be closed by `unwanted`, and what goes with it."""
        if not _same_user(sibling):
            raise ValueError("a stranger")
        room = socket.CMSG_SPACE(struct.calcsize("i"))
        head, ancillary, *_ = sibling.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
        passed = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                passed += [descriptor for (descriptor,) in struct.iter_unpack("i", data)]
        for descriptor in passed:
            unwanted.callback(os.close, descriptor)
        if len(passed) != 1 or not stat.S_ISSOCK(os.fstat(passed[0]).st_mode) or len(head) != _LENGTH.size:
            raise ValueError("no connection")
        (size,) = _LENGTH.unpack(head)
        if size > self._max_bytes:
            raise ValueError("more than any request has")
        return passed[0], msgspec.msgpack.decode(_read(sibling, size), type=HandoverRequest)


def _read(sock: Any, size: int) -> bytes:
    """Return so many bytes."""
    pieces = []
    while size:
        piece = sock.recv(min(size, 65_536))
        if not piece:
            raise ValueError("half a message")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
