"""A binary packet is kept as it was sent until its attachments have arrived."""

import sys

import pytest

from socket_server.transport.socketio.partial_packet import PartialPacket


def test_a_packet_is_complete_with_its_last_attachment() -> None:
    partial = PartialPacket('52-7["x",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]', 2, 100)
    assert not partial.add(b"zero")
    assert partial.add(b"one")
    head, data = partial.decode()
    assert (head.id, data) == (7, ["x", b"one", b"zero"])


def test_attachments_are_limited_together() -> None:
    partial = PartialPacket('52-["x"]', 2, 10)
    assert not partial.add(b"x" * 6)
    with pytest.raises(ValueError, match="larger"):
        partial.add(b"x" * 5)


def test_a_malformed_packet_is_a_value_error_when_it_is_complete() -> None:
    partial = PartialPacket('51-["x",', 1, 10)
    assert partial.add(b"")
    with pytest.raises(ValueError, match=r".+"):
        partial.decode()


@pytest.mark.parametrize("content", ["{}," * 20_000, "😀" + "x" * 60_000, "ש" * 30_000])
def test_a_packet_takes_little_more_memory_than_it_has_bytes(content: str) -> None:
    text = '51-["x",' + content
    partial = PartialPacket(text, 1, 65_536)
    assert sys.getsizeof(partial._text) < len(text.encode()) + 100
