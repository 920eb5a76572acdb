"""Limits by client address, on one node and over several."""

from socket_server.transport.engineio.address_limits import AddressLimits


def test_an_address_is_crowded_at_its_limit_until_a_connection_ends() -> None:
    limits = AddressLimits(max_connections=2)
    limits.opened("1.2.3.4")
    assert not limits.crowded("1.2.3.4")
    limits.opened("1.2.3.4")
    assert limits.crowded("1.2.3.4")
    assert not limits.crowded("5.6.7.8")
    limits.closed("1.2.3.4")
    assert not limits.crowded("1.2.3.4")
    for _ in range(3):
        limits.closed("1.2.3.4")
    assert limits.counts() == {}


def test_connections_are_not_counted_without_a_limit() -> None:
    limits = AddressLimits()
    limits.opened("1.2.3.4")
    assert limits.counts() == {}
    assert not limits.crowded("1.2.3.4")


def test_an_address_is_blocked_after_too_many_failed_authentications() -> None:
    limits = AddressLimits(max_failures_per_minute=3)
    for _ in range(2):
        limits.failed("1.2.3.4")
    assert not limits.blocked("1.2.3.4")
    for _ in range(5):
        limits.failed("1.2.3.4")
    assert limits.blocked("1.2.3.4")
    assert not limits.blocked("5.6.7.8")


def test_ipv6_addresses_of_one_network_share_their_limits() -> None:
    limits = AddressLimits(max_connections=1, max_failures_per_minute=2)
    limits.opened("2001:db8:0:1::1")
    assert limits.crowded("2001:db8:0:1:2:3:4:5")
    assert not limits.crowded("2001:db8:0:2::1")
    for number in range(5):
        limits.failed(f"2001:db8:0:1::{number}")
    assert limits.blocked("2001:db8:0:1::ffff")
    assert not limits.blocked("2001:db8:0:2::ffff")


def test_clients_without_an_address_are_not_limited() -> None:
    limits = AddressLimits(max_connections=1, max_failures_per_minute=1)
    told: list[object] = []
    limits.on_failed = limits.on_counted = lambda *event: told.append(event)
    for _ in range(10):
        limits.opened("")
        limits.failed("")
    assert not limits.crowded("")
    assert not limits.blocked("")
    limits.closed("")
    assert told == []


def test_other_nodes_are_told_and_counted() -> None:
    limits = AddressLimits(max_connections=2, max_failures_per_minute=3)
    told: list[object] = []
    limits.on_failed = limits.on_counted = lambda *event: told.append(event)
    limits.opened("1.2.3.4")
    limits.failed("2001:db8::1")
    limits.closed("1.2.3.4")
    assert told == [("1.2.3.4", 1), ("2001:db8::/64",), ("1.2.3.4", 0)]
    limits.set_elsewhere("b", "1.2.3.4", 2)
    assert limits.crowded("1.2.3.4")
    limits.set_elsewhere("b", "1.2.3.4", 0)
    assert not limits.crowded("1.2.3.4")
    limits.set_all_elsewhere({"b": {"1.2.3.4": 1}, "c": {"1.2.3.4": 1}})
    assert limits.count("1.2.3.4") == 2
    limits.forget_elsewhere("c")
    limits.forget_elsewhere("unknown")
    assert limits.count("1.2.3.4") == 1
    limits.failed_elsewhere("5.6.7.8", 4)
    assert limits.blocked("5.6.7.8")
