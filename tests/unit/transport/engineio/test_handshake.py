"""What is kept of a handshake request."""

import ipaddress
import sys
from typing import Any

import pytest

from socket_server.transport.engineio.client_address import TrustedProxies
from socket_server.transport.engineio.handshake import MAX_CREDENTIAL_CHARS, Handshake, HandshakeReader


def read(**environ: Any) -> Handshake:
    return HandshakeReader().read(environ)


def test_the_address_the_user_agent_and_the_credentials_are_kept() -> None:
    handshake = read(
        REMOTE_ADDR="203.0.113.7",
        HTTP_USER_AGENT="a browser",
        HTTP_COOKIE="jwt=t; id=1",
        HTTP_AUTHORIZATION="Bearer t",
        HTTP_X_FORWARDED_FOR="1.2.3.4",
    )
    assert handshake == Handshake("203.0.113.7", "a browser", "jwt=t; id=1", "Bearer t")
    assert handshake.size == len("203.0.113.7a browserjwt=t; id=1Bearer t")


def test_the_address_behind_a_trusted_proxy_is_the_clients() -> None:
    reader = HandshakeReader(TrustedProxies((ipaddress.ip_network("203.0.113.0/24"),)))
    environ = {"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_FOR": "1.2.3.4:5678"}
    assert reader.read(environ).address == reader.address(environ) == "1.2.3.4"


def test_absent_headers_are_empty() -> None:
    assert read() == Handshake("", "", "", "")


def test_a_long_user_agent_is_cut() -> None:
    assert len(read(HTTP_USER_AGENT="x" * 30_000).user_agent) == 200


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a=1; jwt=t; b=2; id=7; c=3", "jwt=t; id=7"),
        ("id=7;jwt=t", "jwt=t; id=7"),
        ("jwt=first; jwt=second; id=1; id=2", "jwt=first; id=1"),
        ("  jwt =t", "jwt =t"),
        ('jwt="t"; id=%D7%A9', 'jwt="t"; id=%D7%A9'),
        ("xjwt=1; jwtx=2; x-id=3; =jwt=4", ""),
        ("session=" + "x" * 30_000, ""),
        ("jwt", ""),
        (";;;jwt=;id=", "jwt=; id="),
    ],
)
def test_of_the_cookies_only_the_needed_ones_are_kept(sent: str, kept: str) -> None:
    assert read(HTTP_COOKIE=sent).cookie == kept


def test_the_names_of_the_needed_cookies_are_configured() -> None:
    reader = HandshakeReader(cookies=("my.token+", "user"))
    assert reader.read({"HTTP_COOKIE": "jwt=1; my.token+=2; myxtoken+=3; user=4"}).cookie == "my.token+=2; user=4"


def test_a_long_header_of_which_little_is_needed_is_not_held() -> None:
    handshake = read(HTTP_COOKIE="x=" + "y" * 30_000 + "; jwt=t; id=7")
    assert sys.getsizeof(handshake.cookie) < 100


def test_long_credentials_are_cut_above_the_length_that_is_refused_anyway() -> None:
    handshake = read(HTTP_COOKIE="jwt=" + "x" * 32_000, HTTP_AUTHORIZATION="Bearer " + "x" * 32_000)
    assert len(handshake.cookie) == len(handshake.authorization) == MAX_CREDENTIAL_CHARS


def test_credentials_are_not_printed() -> None:
    assert "secret" not in repr(Handshake("1.2.3.4", "a browser", "jwt=secret-1", "Bearer secret-2"))
