"""Closing a listening socket: new connections are dropped, and those in the backlog are served."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from socket_server.workers import graceful_listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")


def is_local(host: str) -> bool:
    """Return whether this machine has an address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        try:
            tried.bind((host, 0))
        except OSError:
            return False
        return True


@pytest.fixture(params=list(filter(is_local, ("127.0.0.1", "::1"))))
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.create_server(
        (request.param, 0), family=socket.AF_INET6 if ":" in request.param else socket.AF_INET
    ) as made:
        yield made


def connect(listener: socket.socket, timeout_s: float) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=timeout_s)


def test_a_new_connection_is_dropped_and_refused_once_the_listener_is_closed(listener: socket.socket) -> None:
    assert graceful_listener.drop_new_connections(listener)
    with pytest.raises(TimeoutError):
        connect(listener, 0.2)
    address = listener.getsockname()[:2]
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_connection_in_the_backlog_is_accepted_and_works(listener: socket.socket) -> None:
    with connect(listener, 5) as client:
        assert graceful_listener.drop_new_connections(listener)
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"a post")
            assert accepted.recv(10) == b"a post"
            accepted.sendall(b"an answer")
            assert client.recv(10) == b"an answer"


def test_a_socket_that_is_not_tcp_cannot_drop_connections() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        assert not graceful_listener.drop_new_connections(listening)


def test_a_socket_is_found_in_another_process(listener: socket.socket) -> None:
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert graceful_listener.is_open_in(holder.pid, listener)
        assert not graceful_listener.is_open_in(other.pid, listener)
        assert graceful_listener.is_open_in(os.getpid(), listener)
        for each in (holder, other):
            each.communicate(b"\n", timeout=10)
        assert graceful_listener.is_open_in(holder.pid, listener), "a process that cannot be looked into counts as one"
    finally:
        for each in (holder, other):
            each.kill()
            each.wait()


@pytest.mark.parametrize(
    ("systemd", "address", "inherited"), [(False, ("0", 1), False), (True, ("0", 1), True), (False, 7, True)]
)
def test_sockets_of_systemd_and_file_descriptors_are_inherited(systemd: bool, address: object, inherited: bool) -> None:
    arbiter = SimpleNamespace(systemd=systemd, cfg=SimpleNamespace(address=[address]))
    assert graceful_listener.is_inherited(arbiter) is inherited
