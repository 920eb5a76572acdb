"""May this caller use the REST API."""

import pytest

from socket_server.auth.api_keys import ApiKeys, is_loopback_call

KEYS = ApiKeys(["first-key", "second-key"])


@pytest.mark.parametrize("header", ["Bearer first-key", "Bearer second-key", "bearer first-key", "BEARER  first-key "])
def test_each_of_the_keys_is_accepted(header: str) -> None:
    assert KEYS.accept(header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "first-key",
        "Basic first-key",
        "Bearer first-ke",
        "Bearer first-keyy",
        "Bearer FIRST-KEY",
        "Bearer first-key,second-key",
        "Bearer first-key second-key",
        "Bearerfirst-key",
        "Token first-key",
        "Bearer \xff",
        "Bearer מפתח",
    ],
)
def test_anything_else_is_not(header: str) -> None:
    assert not KEYS.accept(header)


def test_without_keys_every_call_is_refused() -> None:
    none = ApiKeys([])
    assert not none
    assert KEYS
    for header in ("", "Bearer ", "Bearer x"):
        assert not none.accept(header)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1"])
@pytest.mark.parametrize("host", ["localhost", "localhost:3001", "127.0.0.1:3001", "[::1]:3001", "LOCALHOST"])
def test_a_call_from_this_machine_by_its_own_name_is_local(address: str, host: str) -> None:
    assert is_loopback_call(address, host, forwarded=False)


@pytest.mark.parametrize(
    "address", ["", "10.0.0.1", "8.8.8.8", "::", "fe80::1", "localhost", "127.0.0.1.evil.example", "0.0.0.0"]
)
def test_a_call_from_elsewhere_is_not_local(address: str) -> None:
    assert not is_loopback_call(address, "localhost", forwarded=False)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:3001", "localhost.evil.example", "[::1", "10.0.0.1", "@localhost@x"]
)
def test_a_name_pointed_at_this_machine_is_not_local(host: str) -> None:
    assert not is_loopback_call("127.0.0.1", host, forwarded=False)


def test_a_forwarded_call_is_not_local() -> None:
    assert not is_loopback_call("127.0.0.1", "localhost", forwarded=True)
