"""Addresses that cannot be bound are explained in one line, with the setting that names them."""

import socket
from types import SimpleNamespace

import pytest

from socket_server.workers import binding
from tests.servers import free_port


@pytest.fixture(autouse=True)
def no_inherited_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GUNICORN_FD", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)


def problems(host: str, port: int, *, settings: tuple[str, int] | None = None) -> list[str]:
    return binding.problems_with(SimpleNamespace(address=[(host, port)]), *(settings or (host, port)))


def test_a_free_port_is_no_problem() -> None:
    assert problems("127.0.0.1", free_port()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_busy_port_is_named(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (problem,) = problems(host, port)
    assert problem.startswith(f"PORT is {port}, ")


def test_a_busy_port_of_the_command_line_is_not_called_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (problem,) = problems("127.0.0.1", taken.getsockname()[1], settings=("0.0.0.0", 3001))
    assert "PORT" not in problem
    assert "--bind" in problem


@pytest.mark.parametrize(
    ("host", "words"), [("198.51.100.7", "no address of this machine"), ("no.such.host.invalid", "resolve")]
)
def test_an_address_of_another_machine_is_named(host: str, words: str) -> None:
    (problem,) = problems(host, free_port())
    assert problem.startswith(f"HOST is {host!r}")
    assert words in problem


def test_a_port_that_was_just_closed_can_be_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            pass  # leaves a socket in TIME_WAIT
    assert problems("127.0.0.1", port) == []


@pytest.mark.parametrize("name", ["GUNICORN_FD", "LISTEN_FDS"])
def test_inherited_sockets_are_not_bound_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert problems("127.0.0.1", taken.getsockname()[1]) == []
