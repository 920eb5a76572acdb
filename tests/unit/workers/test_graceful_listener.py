"""A listening socket that is about to go: newcomers stay out, and who has come in is served."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from socket_server.workers import graceful_listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a filter on a socket is Linux's")


def here(host: str) -> bool:
    """Whether this machine has an address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        try:
            tried.bind((host, 0))
        except OSError:
            return False
        return True


@pytest.fixture(params=list(filter(here, ("127.0.0.1", "::1"))))
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.create_server(
        (request.param, 0), family=socket.AF_INET6 if ":" in request.param else socket.AF_INET
    ) as made:
        yield made


def client_of(listener: socket.socket, timeout_s: float) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=timeout_s)


def test_a_newcomer_stays_outside_and_is_refused_when_the_door_is_closed(listener: socket.socket) -> None:
    assert graceful_listener.keep_newcomers_out(listener)
    with pytest.raises(TimeoutError):
        client_of(listener, 0.2)
    listening_at = listener.getsockname()[:2]
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(listening_at, timeout=5)


def test_who_stands_in_line_is_let_in_and_heard(listener: socket.socket) -> None:
    with client_of(listener, 5) as client:
        assert graceful_listener.keep_newcomers_out(listener)
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"a post")
            assert accepted.recv(10) == b"a post"
            accepted.sendall(b"an answer")
            assert client.recv(10) == b"an answer"


def test_a_socket_that_is_no_tcp_listener_has_no_such_door() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        assert not graceful_listener.keep_newcomers_out(listening)


def test_it_is_seen_who_holds_the_socket_too(listener: socket.socket) -> None:
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert graceful_listener.held_by(holder.pid, listener)
        assert not graceful_listener.held_by(stranger.pid, listener)
        assert graceful_listener.held_by(os.getpid(), listener)
        for each in (holder, stranger):
            each.communicate(b"\n", timeout=10)
        assert graceful_listener.held_by(holder.pid, listener)  # it cannot be seen any more
    finally:
        for each in (holder, stranger):
            each.kill()
            each.wait()


@pytest.mark.parametrize(
    ("systemd", "address", "lent"), [(False, ("0", 1), False), (True, ("0", 1), True), (False, 7, True)]
)
def test_a_socket_from_whoever_started_gunicorn_is_lent(systemd: bool, address: object, lent: bool) -> None:
    worker = SimpleNamespace()
    graceful_listener.lend(SimpleNamespace(systemd=systemd, cfg=SimpleNamespace(address=[address])), worker)
    assert worker.lent is lent
