"""The client's address behind proxies: what proxies write is read, and what cannot be read is no address."""

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio.client_address import (
    MAX_MEMBERS,
    TrustedProxies,
    client_address,
    limit_key,
    parse,
)

PROXIES = TrustedProxies(tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8", "127.0.0.1"))))
CLIENT = "198.51.100.66"


def address(remote: str, forwarded_for: str | None, trusted: TrustedProxies = PROXIES) -> str:
    environ = {"REMOTE_ADDR": remote} if remote else {}
    if forwarded_for is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded_for
    return client_address(environ, trusted)


@pytest.mark.parametrize(
    ("remote", "forwarded_for", "expected"),
    [
        ("203.0.113.7", None, "203.0.113.7"),
        ("203.0.113.7", "1.2.3.4", "203.0.113.7"),  # the peer is no trusted proxy
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # the first member is the client's own claim
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6,1.2.3.4,10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", "10.9.9.9, 10.0.0.2", "10.9.9.9"),  # a client inside the trusted network
        ("10.0.0.1", "nonsense, 1.2.3.4", "1.2.3.4"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
    ],
)
def test_the_address_is_the_last_one_that_is_no_trusted_proxy(
    remote: str, forwarded_for: str | None, expected: str
) -> None:
    assert address(remote, forwarded_for) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("198.51.100.66:51234", CLIENT),  # Azure Application Gateway
        ("198.51.100.66:_port", CLIENT),  # RFC 7239 section 6.2
        ('"198.51.100.66"', CLIENT),
        ('"198.51.100.66:443"', CLIENT),
        ("[2001:db8::1]:51234", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"[2001:db8::1]:4711"', "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:198.51.100.66", CLIENT),
        ("::FFFF:C633:6442", CLIENT),
        ("[::ffff:198.51.100.66]:80", CLIENT),
        (f"{CLIENT}, , ", CLIENT),
        (f" ,{CLIENT}\t,", CLIENT),
        (f"unknown, {CLIENT}", CLIENT),
    ],
)
def test_every_form_that_proxies_write_is_read(written: str, expected: str) -> None:
    assert address("10.0.0.1", written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "unknown",
        "_hidden",
        "_SEVKISEK:_port",
        "nonsense",
        "1.2.3.4, nonsense",
        "1.2.3.4, unknown",
        ", ,",
        "",
        None,
        "198.51.100.066",  # octal or decimal: programs differ
        "198.51.100",
        "198.51.100.66:port",
        "198.51.100.66:123456",
        "198.51.100.66:51234:1",
        "[2001:db8::1",
        "2001:db8::1]",
        "[]",
        "[2001:db8::1]x",
        "for=198.51.100.66",
        "1.2.3.4 5.6.7.8",
        "1.2.3.4\x00",
        "１.2.3.4",
        "fe80::1%" + "x" * 27_000,
        "[fe80::1%" + "x" * 27_000 + "]:80",
        "x" * 32_000,
        ",".join(["10.0.0.1"] * (MAX_MEMBERS + 5)),
    ],
)
def test_a_client_whose_address_cannot_be_read_has_none(written: str | None) -> None:
    assert address("10.0.0.1", written) == ""


def test_an_unread_member_in_front_of_the_client_does_not_matter() -> None:
    assert address("10.0.0.1", "x" * 27_000 + f", {CLIENT}") == CLIENT


def test_reading_the_longest_header_takes_no_time() -> None:
    hostile = ["fe80::1%" + "%" * 30_000, "[" * 30_000, "1." * 15_000, "10.0.0.1," * 3_500, ":" * 30_000, '"' * 30_000]
    started = time.perf_counter()
    for written in hostile * 20:
        address("10.0.0.1", written)
    assert (time.perf_counter() - started) / (len(hostile) * 20) < 0.005


def test_the_peer_is_the_client_if_no_proxy_is_trusted() -> None:
    assert address("10.0.0.1", "1.2.3.4", TrustedProxies()) == "10.0.0.1"
    assert address("::FFFF:10.0.0.1", None, TrustedProxies()) == "10.0.0.1"
    assert address("fe80::1%eth0", None, TrustedProxies()) == "fe80::1"


def test_the_peer_of_a_unix_socket_is_believed_if_it_is_trusted_and_has_no_address_itself() -> None:
    unix = TrustedProxies(unix_socket=True)
    assert address("", CLIENT, unix) == CLIENT
    assert address("", None, unix) == ""
    assert address("", CLIENT, PROXIES) == ""
    assert address("", CLIENT, TrustedProxies()) == ""
    assert address("203.0.113.7", CLIENT, unix) == "203.0.113.7"
    assert address("", f"{CLIENT}, 10.0.0.2", TrustedProxies(PROXIES.networks, unix_socket=True)) == CLIENT


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_any_header_is_an_address_or_none(written: str) -> None:
    found = address("10.0.0.1", written)
    assert found == "" or str(parse(found)) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"),
        ("2001:DB8:0:1::1", "2001:db8:0:1::2"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::2"),
        ("198.51.100.66:1", "198.51.100.66:2"),
    ],
)
def test_addresses_of_one_client_are_counted_as_one(one: str, other: str) -> None:
    assert limit_key(address("10.0.0.1", one)) == limit_key(address("10.0.0.1", other)) != ""


def test_addresses_of_different_clients_are_counted_separately() -> None:
    keys = {limit_key(each) for each in ("1.2.3.4", "1.2.3.5", "2001:db8:0:1::1", "2001:db8:0:2::1", "::1")}
    assert len(keys) == 5
    assert limit_key("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    assert limit_key("") == ""
