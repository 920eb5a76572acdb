"""The receiving side of a handover."""

import contextlib
import os
import stat
import struct
from typing import Any, Protocol

import gevent
import msgspec
from gevent import socket
from gevent.pool import Pool

from socket_server.transport.http.handover import message
from socket_server.transport.http.handover.message import ACCEPTED, LENGTH, HandoverRequest
from socket_server.transport.http.handover.sender import MAX_CONCURRENT, TIMEOUT_S
from socket_server.transport.http.handover.worker_tag import same_user, socket_name

_READ_BYTES = 65_536
_ACCEPT_RETRY_S = 0.1  # after an accept() that failed for want of descriptors


class Host(Protocol):
    """Serves the connections that are received."""

    def full(self) -> bool:
        """Return whether it can serve no more."""

    def serve_received(self, sock: Any, request: HandoverRequest) -> None:
        """Serve a connection, beginning with this request, and close it in the end. Must not block."""


class HandoverListener:
    """Receives connections from the other workers."""

    def __init__(self, tag: str, host: Host, max_body_bytes: int) -> None:
        """max_body_bytes: the largest body of a request that names a session. Raises OSError if it cannot listen."""
        self._host = host
        self._max_bytes = message.max_bytes(max_body_bytes)
        self._pool = Pool(MAX_CONCURRENT)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(socket_name(tag))
        self._listener.listen(MAX_CONCURRENT)
        self._stopped = False

    def start(self) -> None:
        """Receive connections until stop() or the end of the process."""
        gevent.spawn(self._accept)

    def stop(self) -> None:
        self._stopped = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # out of descriptors, which HttpServer logs; or stopped
                gevent.sleep(_ACCEPT_RETRY_S)
            else:
                self._pool.spawn(self._receive, peer)

    def _receive(self, peer: Any) -> None:
        with contextlib.closing(peer), contextlib.ExitStack() as unaccepted:
            try:
                with gevent.Timeout(TIMEOUT_S):
                    descriptor, request = self._read_message(peer, unaccepted)
                if self._host.full():
                    return
                # From here on the connection is ours. If the sender has given up before, this fails.
                peer.send(ACCEPTED)
            except (OSError, ValueError, msgspec.MsgspecError, gevent.Timeout):
                return  # it is no worker of ours, or it has given up
            unaccepted.pop_all()
            self._host.serve_received(socket.socket(fileno=descriptor), request)

    def _read_message(self, peer: Any, unaccepted: contextlib.ExitStack) -> tuple[int, HandoverRequest]:
        """Return the file descriptor, which `unaccepted` closes, and the request. Raises ValueError or MsgspecError."""
        if not same_user(peer):
            raise ValueError("a process of another user")
        room = socket.CMSG_SPACE(struct.calcsize("i"))
        head, ancillary, *_ = peer.recvmsg(LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
        passed = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                passed += [descriptor for (descriptor,) in struct.iter_unpack("i", data)]
        for descriptor in passed:
            unaccepted.callback(os.close, descriptor)
        if len(passed) != 1 or not stat.S_ISSOCK(os.fstat(passed[0]).st_mode) or len(head) != LENGTH.size:
            raise ValueError("not one connection")
        (size,) = LENGTH.unpack(head)
        if size > self._max_bytes:
            raise ValueError("larger than any request")
        return passed[0], message.decode(_read_exactly(peer, size))


def _read_exactly(sock: Any, size: int) -> bytes:
    pieces = []
    while size:
        piece = sock.recv(min(size, _READ_BYTES))
        if not piece:
            raise ValueError("the message ends too early")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
