"""What clients send as Socket.IO packets: decoded as protocol 5 and socket.io-parser have it, or a ValueError."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import socketio.packet
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.transport.socketio.decoder import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    DISCONNECT,
    EVENT,
    MAX_ATTACHMENTS,
    MAX_JSON_DEPTH,
    RESERVED_EVENTS,
    decode_data,
    decode_head,
)
from tests.unit.transport.socketio.any_json import any_json


class Decoded(NamedTuple):
    kind: str
    namespace: str
    id: int | None
    data: Any


def decode(text: str, attachments: Sequence[bytes] = ()) -> Decoded:
    head = decode_head(text)
    assert head.attachments == len(attachments)
    return Decoded(head.kind, head.namespace, head.id, decode_data(head, attachments))


# The examples of the protocol document


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", Decoded(CONNECT, "/", None, None)),
        ('0{"token":"123"}', Decoded(CONNECT, "/", None, {"token": "123"})),
        ("0/admin", Decoded(CONNECT, "/admin", None, None)),
        ("0/admin,", Decoded(CONNECT, "/admin", None, None)),
        ('0/admin,{"token":"123"}', Decoded(CONNECT, "/admin", None, {"token": "123"})),
        ("0/admin?a=b,", Decoded(CONNECT, "/admin", None, None)),
        ("0/,{}", Decoded(CONNECT, "/", None, {})),
        ("1", Decoded(DISCONNECT, "/", None, None)),
        ("1/admin,", Decoded(DISCONNECT, "/admin", None, None)),
        ('2["foo"]', Decoded(EVENT, "/", None, ["foo"])),
        ('2/admin,["bar"]', Decoded(EVENT, "/admin", None, ["bar"])),
        ('212["foo"]', Decoded(EVENT, "/", 12, ["foo"])),
        ('20["foo"]', Decoded(EVENT, "/", 0, ["foo"])),
        ('2/admin,456["project:delete",123]', Decoded(EVENT, "/admin", 456, ["project:delete", 123])),
        ('3/admin,13["bar"]', Decoded(ACK, "/admin", 13, ["bar"])),
        ("312[]", Decoded(ACK, "/", 12, [])),
        ('2["שלום",{"a":[1,2.5,null,true]}]', Decoded(EVENT, "/", None, ["שלום", {"a": [1, 2.5, None, True]}])),
    ],
)
def test_a_packet_of_the_protocol_is_decoded(text: str, packet: Decoded) -> None:
    assert decode(text) == packet


@pytest.mark.parametrize(
    ("text", "attachments", "packet"),
    [
        ('51-["baz",{"_placeholder":true,"num":0}]', [b"x"], Decoded(BINARY_EVENT, "/", None, ["baz", b"x"])),
        ('52-/admin,["baz",1]', [b"x", b"y"], Decoded(BINARY_EVENT, "/admin", None, ["baz", 1])),
        ('51-/admin,15["x"]', [b"x"], Decoded(BINARY_EVENT, "/admin", 15, ["x"])),
        ('50-["x"]', [], Decoded(BINARY_EVENT, "/", None, ["x"])),
        ('61-15["bar"]', [b"x"], Decoded(BINARY_ACK, "/", 15, ["bar"])),
    ],
)
def test_a_binary_packet_of_the_protocol_is_decoded(text: str, attachments: list[bytes], packet: Decoded) -> None:
    assert decode(text, attachments) == packet


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("2[1]", [1]),
        ('2[-1.5,"x"]', [-1.5, "x"]),
        ("2", None),
        ("25", None),
        ("3[]", []),
        ("312", None),
        ('2["x","\\ud83d"]', ["x", "\ufffd"]),  # half an emoji
        ('2["\\ud800",{"\\udfff":["\\ud83d\\ude00"]}]', ["\ufffd", {"\ufffd": ["\U0001f600"]}]),
        ('2["x",1e999]', ["x", float("inf")]),
        ('2["x",123456789012345678901234567890]', ["x", 123456789012345678901234567890.0]),
        (f'2["x",{"9" * 60_000}]', ["x", float("inf")]),
    ],
)
def test_what_socket_io_parser_accepts_is_decoded(text: str, data: Any) -> None:
    assert decode(text).data == data


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "7",
        "9[]",
        "a",
        "x2[]",
        "٢[]",
        "-1",
        "2{}",
        "2[]",
        "2[null]",
        "2[[]]",
        "2[{}]",
        '2"x"',
        '2["x"',
        '2["x"]y',
        '2["x"] 3["y"]',
        "2[NaN]",
        '2["x",NaN]',
        '2["x",Infinity]',
        '2["\x01"]',
        '2admin,["x"]',
        "0[]",
        "0null",
        "1null",
        "2null",
        "2[true]",
        "51-",
        '0"token"',
        "0true",
        "0{",
        "1{}",
        "1[]",
        "312{}",
        '4{"message":"x"}',
        "4",
        '5["x"]',
        '5-["x"]',
        '511["x"]',
        '6["x"]',
        '62-12{"a":1}',
        '21-["x"]',
        '31-12["x"]',
        "01-{}",
        '5-1-["x"]',
        '51.5-["x"]',
        '5 1-["x"]',
    ],
)
def test_a_packet_that_is_not_of_the_protocol_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_data(decode_head(text))


@pytest.mark.parametrize(
    "name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)
def test_a_reserved_event_name_is_a_value_error(name: str) -> None:
    for text in (f'2["{name}"]', f'212["{name}",{{}}]', f'51-["{name}"]', f'2["\\u{ord(name[0]):04x}{name[1:]}"]'):
        with pytest.raises(ValueError, match="invalid payload"):
            decode_data(decode_head(text))


def test_the_number_of_attachments_is_limited() -> None:
    assert decode_head(f'5{MAX_ATTACHMENTS}-["x"]').attachments == MAX_ATTACHMENTS
    for count in (MAX_ATTACHMENTS + 1, 10**9, 10**10, 10**30):
        with pytest.raises(ValueError, match=r".+"):
            decode_head(f'5{count}-["x"]')


def test_the_length_of_an_id_is_limited() -> None:
    assert decode_head(f'2{"9" * 20}["x"]').id == 10**20 - 1
    for digits in (21, 100, 5_000, 60_000):
        with pytest.raises(ValueError, match="too long"):
            decode_head(f'2{"9" * digits}["x"]')


def test_the_length_of_a_namespace_is_limited() -> None:
    assert decode_head("0/" + "a" * 255).namespace == "/" + "a" * 255
    for length in (256, 60_000):
        with pytest.raises(ValueError, match=r".+"):
            decode("0/" + "a" * length)


def nested(levels: int, opening: str = "[", closing: str = "]", middle: str = "1") -> str:
    return opening * levels + middle + closing * levels


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_json_deeper_than_the_limit_is_a_value_error(opening: str, closing: str) -> None:
    step = opening.count("[") + opening.count("{")
    fits = (MAX_JSON_DEPTH - 1) // step  # the event's own array is a level
    assert decode(f'2["x",{nested(fits, opening, closing)}]').kind == EVENT
    for levels in (fits + 2, 200, 1_000, 1_024, 5_000, 30_000):
        with pytest.raises(ValueError, match=r".+"):
            decode(f'2["x",{nested(levels, opening, closing)}]')


def test_brackets_in_strings_and_in_sequence_are_no_depth() -> None:
    wide = ",".join(["[]"] * 500)
    assert decode(f'2["x",{wide}]').data == ["x", *[[]] * 500]
    assert decode('2["x","' + "[{" * 500 + '"]').data[1] == "[{" * 500


def test_placeholders_are_looked_for_down_to_the_deepest_level() -> None:
    placeholder = '{"_placeholder":true,"num":0}'
    text = f'51-["x",{nested(MAX_JSON_DEPTH - 2, middle=placeholder)}]'
    data = decode(text, [b"deep"]).data[1]
    for _ in range(MAX_JSON_DEPTH - 2):
        [data] = data
    assert data == b"deep"


event_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name not in RESERVED_EVENTS)


def decode_or_refuse(text: str) -> None:
    try:
        head = decode_head(text)
        decode_data(head, [b""] * head.attachments)
    except ValueError:
        return
    assert head.kind in "012356"
    assert head.namespace.startswith("/")
    assert 0 <= head.attachments <= MAX_ATTACHMENTS


@given(st.text() | st.text(st.sampled_from('012345-/,[]{}":x\\ntrue.e'), max_size=40))
@example('2["x",' + "[" * 60_000)
@example("0" + "{" * 60_000)
@example("2" + "[" * 60_000 + "]" * 60_000)
@example("5" + "1" * 60_000)
@example("0/" + "/" * 60_000)
@example('2["x",1' + "0" * 60_000 + "]")
@example('2["x",1e999]')
@example('2["x",' + "-" * 1_000)
def test_any_text_is_decoded_or_a_value_error(text: str) -> None:
    decode_or_refuse(text)


@given(st.sampled_from("0123456789"), st.sampled_from(["", "1-", "11-", "/", "/a,", "7", "1-/b,9"]), any_json)
def test_any_json_behind_any_head_is_decoded_or_a_value_error(kind: str, head: str, data: Any) -> None:
    decode_or_refuse(kind + head + json.dumps(data))


@given(
    event_names, st.lists(any_json, max_size=3), st.none() | st.integers(0, 10**15 - 1), st.sampled_from(["/", "/admin"])
)
def test_what_python_socketio_encodes_is_decoded(
    name: str, arguments: list[Any], number: int | None, namespace: str
) -> None:
    for kind, data in ((EVENT, [name, *arguments]), *([(ACK, arguments)] if number is not None else [])):
        encoded = socketio.packet.Packet(int(kind), data=data, namespace=namespace, id=number).encode()
        assert decode(encoded) == Decoded(kind, namespace, number, data)


@given(event_names, st.lists(st.binary(max_size=8), min_size=1, max_size=4), any_json, st.none() | st.integers(0, 99))
def test_what_python_socketio_encodes_in_binary_is_decoded(
    name: str, blobs: list[bytes], other: Any, number: int | None
) -> None:
    data = [name, other, {"blobs": blobs}, blobs[0]]
    text, *attachments = socketio.packet.Packet(socketio.packet.EVENT, data=data, id=number).encode()
    packet = decode(text, attachments)
    assert packet == Decoded(BINARY_EVENT, "/", number, data)


# Attachments


def attach(data: list[Any], attachments: list[bytes]) -> Any:
    return decode(f"5{len(attachments)}-{json.dumps(data)}", attachments).data


def test_placeholders_are_replaced_at_any_level() -> None:
    data = ["x", {"_placeholder": True, "num": 1}, {"a": [{"_placeholder": True, "num": 0}]}]
    assert attach(data, [b"zero", b"one"]) == ["x", b"one", {"a": [b"zero"]}]


@pytest.mark.parametrize("number", [-1, 1, 2**70, 0.0, "0", None, True, False, [], {}])
def test_a_placeholder_that_names_nothing_is_a_value_error(number: Any) -> None:
    with pytest.raises(ValueError, match="illegal attachment"):
        attach(["x", {"_placeholder": True, "num": number}], [b"zero"])


@pytest.mark.parametrize(
    "data", [{"_placeholder": 1, "num": 0}, {"_placeholder": "true", "num": 0}, {"_placeholder": False, "num": 0}]
)
def test_an_object_that_is_no_placeholder_stays(data: Any) -> None:
    assert attach(["x", data], [b"zero"]) == ["x", data]


@given(any_json | st.dictionaries(st.sampled_from(["_placeholder", "num"]), st.booleans() | st.integers(-2, 3)))
def test_any_json_with_attachments_is_decoded_or_a_value_error(data: Any) -> None:
    try:
        attach(["x", data], [b"a", b"b"])
    except ValueError:
        pass
