"""What is kept of a handshake request, and whose address is believed."""

import ipaddress
from typing import Any

import pytest

from socket_server.transport.engineio.handshake import Handshake, client_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("127.0.0.1"))


def test_what_is_needed_is_kept() -> None:
    environ: dict[str, Any] = {
        "REMOTE_ADDR": "203.0.113.7",
        "HTTP_USER_AGENT": "a browser",
        "HTTP_COOKIE": "jwt=t; id=1",
        "HTTP_AUTHORIZATION": "Bearer t",
        "HTTP_X_FORWARDED_FOR": "1.2.3.4",
    }
    # An untrusted proxy says it stands before the client: the address is the proxy's.
    assert Handshake.of(environ) == Handshake("203.0.113.7", "a browser", "jwt=t; id=1", "Bearer t", attributable=False)


def test_what_is_absent_is_empty() -> None:
    assert Handshake.of({}) == Handshake("", "", "", "")


def test_a_long_user_agent_is_cut() -> None:
    assert len(Handshake.of({"HTTP_USER_AGENT": "x" * 60_000}).user_agent) == 200


def test_credentials_do_not_show_when_it_is_printed() -> None:
    printed = repr(Handshake("1.2.3.4", "a browser", "jwt=secret-1", "Bearer secret-2"))
    assert "secret" not in printed


@pytest.mark.parametrize(
    ("remote", "forwarded_for", "address"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "1.2.3.4", "203.0.113.7"),  # nobody we trust says so
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # the client's own invention stands in front
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9"),
        ("10.0.0.1", "1.2.3.4, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", ", ,", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("", "1.2.3.4", ""),
    ],
)
def test_the_address_is_the_last_one_that_no_trusted_proxy_has(remote: str, forwarded_for: str, address: str) -> None:
    assert client_address(remote, forwarded_for, PROXIES) == address


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert client_address("10.0.0.1", "1.2.3.4", ()) == "10.0.0.1"
