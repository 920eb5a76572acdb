"""The sending side of a handover."""

import contextlib
import errno
import os
import struct
import time
from typing import Any
from weakref import WeakValueDictionary

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original

from socket_server.transport.http.handover.message import ACCEPTED, HandoverRequest
from socket_server.transport.http.handover.worker_tag import same_user, socket_name

# A worker that has not accepted a connection by then counts as dead: the client is told that its session is unknown and
# starts a new one. A dead worker is noticed at once; this is for one that is stopped or far behind.
TIMEOUT_S = 2.0

# Handovers at once from this worker to one other. Each costs file descriptors. More wait.
MAX_CONCURRENT = 128

_RETRY_S = 0.01  # while the other worker's backlog is full


class HandoverSender:
    """Passes connections to other workers."""

    def __init__(self) -> None:
        # By tag, while handovers are in progress: a worker that is stopped delays what is for it, and nothing else.
        self._slots: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()

    def send_connection(self, tag: str, sock: Any, request: HandoverRequest) -> bool:
        """Pass a connection to the worker with this tag. Return whether it has accepted it, which is final.

        sock: a gevent socket. If the connection was accepted, the caller must close it without writing to it.
        """
        slots = self._slots.setdefault(tag, BoundedSemaphore(MAX_CONCURRENT))
        if not slots.acquire(timeout=TIMEOUT_S):
            return False
        try:
            accepted = _send(tag, sock.fileno(), request)
        finally:
            slots.release()
        if accepted:
            _remove_from_event_loop(sock.fileno())
        return accepted


def _send(tag: str, descriptor: int, request: HandoverRequest) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as peer:
        peer.settimeout(TIMEOUT_S)
        try:
            _connect(peer, tag)
            if not same_user(peer):
                return False
            message = request.encode()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
            sent = peer.sendmsg([message], rights)
            peer.sendall(memoryview(message)[sent:])
            return bool(peer.recv(1) == ACCEPTED)
        except TimeoutError:
            # After the shutdown the receiver cannot accept any more, but it may have done so at the last moment.
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
                return bool(peer.recv(1) == ACCEPTED)
        except OSError:
            pass  # there is no such worker, or its pool is full
        return False


def _connect(peer: Any, tag: str) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while (error := peer._sock.connect_ex(socket_name(tag))) == errno.EAGAIN and time.monotonic() < ends:
        gevent.sleep(_RETRY_S)
    if error:
        raise OSError(error, os.strerror(error))


def _remove_from_event_loop(descriptor: int) -> None:
    """Remove a descriptor whose open file is now open in another process too from the event loop's epoll set.

    libev leaves that to close(), which does it only if no other process has the file open. Its events would continue to
    wake this process, and libev, which no longer knows the descriptor, would rebuild the whole set each time.
    """
    loop = gevent.get_hub().loop
    epoll_fd = loop.fileno()
    if loop.backend == "epoll" and epoll_fd is not None:
        epoll = get_original("select", "epoll").fromfd(os.dup(epoll_fd))
        with contextlib.closing(epoll), contextlib.suppress(OSError):  # it may never have been in the set
            epoll.unregister(descriptor)
