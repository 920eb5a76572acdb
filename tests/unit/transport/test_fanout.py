"""Fan-out: each connection gets its packets in order, whatever becomes of the others."""

from typing import Any

import pytest

from socket_server.transport.fanout import fan_out
from socket_server.transport.packets import Packet, encode_notification
from tests.unit.fakes import RecordingSession, connection


def packet(number: int) -> Packet:
    return encode_notification(b'{"n":%d}' % number, number)


def numbers(session: RecordingSession) -> list[int]:
    return [event[1]["n"] for event in session.events]


@pytest.mark.parametrize("several", [False, True], ids=["one notification", "several at once"])
def test_a_connection_whose_write_raises_costs_nobody_else_a_notification(several: bool) -> None:
    (first, before), (second, struck), (third, behind) = connection(), connection(), connection()

    def fail(_: Any) -> bool:
        raise RuntimeError("a fault")

    struck.send = fail  # type: ignore[method-assign]
    everybody = [first, second, third]
    deliveries = [(packet(1), everybody), (packet(2), everybody)] if several else [(packet(1), everybody)]
    assert fan_out(deliveries) == {second}
    assert struck.closures == ["server error"]
    assert numbers(before) == numbers(behind) == ([1, 2] if several else [1])
