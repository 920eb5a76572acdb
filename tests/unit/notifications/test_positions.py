"""Positions: the start of the replay, for everything that a client may send."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.notifications.positions import (
    Position,
    new_pid,
    of_handshake,
    parse_offset,
    pid_of,
    with_event,
)

PID = "Gq3vX-_0aBcD.100"  # its client started at 100
ABSENT = object()

# Values of all JSON types that are not offsets.
GARBAGE = [
    "",
    "x",
    "-1",
    "+1",
    "1.0",
    "1e3",
    " 1",
    "1 ",
    "٣",
    "1" * 20,
    "0x1f",
    -1,
    1.0,
    1e18,
    10**19,
    True,
    False,
    [],
    ["1"],
    {},
]

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(0, 10**19).map(str),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


def auth(**members: Any) -> dict[str, Any]:
    return {"token": "x"} | {name: value for name, value in members.items() if value is not ABSENT}


# Offsets


@pytest.mark.parametrize(
    ("value", "offset"),
    [
        ("0", 0),
        ("1700000000000000", 1_700_000_000_000_000),
        ("007", 7),
        ("9" * 19, 10**19 - 1),
        (0, 0),
        (1_700_000_000_000_000, 1_700_000_000_000_000),
    ],
)
def test_an_offset_is_a_decimal_string_or_a_whole_number(value: Any, offset: int) -> None:
    assert parse_offset(value) == offset


@pytest.mark.parametrize("value", [None, *GARBAGE], ids=repr)
def test_other_values_are_not_offsets(value: Any) -> None:
    assert parse_offset(value) is None


# Pids


def test_a_pid_is_unique_and_contains_the_offset_at_which_its_client_started() -> None:
    pids = {new_pid(1_700_000_000_000_000) for _ in range(1_000)}
    assert len(pids) == 1_000
    for pid in pids:
        assert pid_of({"pid": pid}) == pid
        assert of_handshake({"pid": pid}) == Position(1_700_000_000_000_000, start=1_700_000_000_000_000)


@pytest.mark.parametrize(
    "value",
    [None, "", ".", "x", "x.", ".5", "x.-1", "x.y", "x.5.6", "x.٣", "x.5 ", "x." + "1" * 20, "x" * 63 + ".5", 7, True, []],
    ids=repr,
)
def test_a_text_that_this_server_cannot_have_made_is_not_a_pid(value: Any) -> None:
    assert pid_of(auth(pid=value)) is None
    assert of_handshake(auth(pid=value)) is None


@pytest.mark.parametrize("value", [None, "x", 7, [], True])
def test_a_handshake_whose_auth_is_not_an_object_has_no_position(value: Any) -> None:
    assert pid_of(value) is None
    assert of_handshake(value) is None


# Which source is used


@pytest.mark.parametrize(
    ("pid", "offset", "last_id", "event", "after"),
    [
        # None: a new client starts at the head.
        (ABSENT, ABSENT, ABSENT, ABSENT, None),
        (None, None, None, None, None),
        # The stock client's offset comes first.
        (PID, "200", ABSENT, ABSENT, 200),
        (PID, "200", "150", ABSENT, 200),
        (PID, "200", "250", ABSENT, 200),
        (PID, "200", ABSENT, "250", 200),
        (PID, "200", "150", "250", 200),
        ("another server's", "200", "150", ABSENT, 200),
        # Then the application's lastId: of the event, then of the handshake.
        (PID, ABSENT, ABSENT, "250", 250),
        (PID, ABSENT, "150", "250", 250),
        (ABSENT, ABSENT, "150", "250", 250),
        (ABSENT, ABSENT, ABSENT, "250", 250),
        (PID, ABSENT, "150", ABSENT, 150),
        (PID, None, "150", None, 150),
        (ABSENT, ABSENT, "150", ABSENT, 150),
        # Then the offset at which the client started.
        (PID, ABSENT, ABSENT, ABSENT, 100),
        (PID, None, None, None, 100),
        # An offset without a pid does not come from the stock client.
        (ABSENT, "200", ABSENT, ABSENT, None),
        (ABSENT, "200", "150", ABSENT, 150),
        (None, "200", ABSENT, "250", 250),
    ],
)
def test_the_sources_of_a_position_have_an_order(
    pid: Any, offset: Any, last_id: Any, event: Any, after: int | None
) -> None:
    position = with_event(of_handshake(auth(pid=pid, offset=offset, lastId=last_id)), auth(lastId=event))
    assert (None if position is None else position.after) == after
    assert (position is None) == (after is None)


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_a_value_that_is_not_an_offset_is_an_unknown_position(garbage: Any) -> None:
    unknown = Position(None)
    assert of_handshake(auth(lastId=garbage)) == unknown
    assert with_event(None, auth(lastId=garbage)) == unknown
    assert with_event(Position(150), auth(lastId=garbage)) == unknown
    # An unreadable offset of the stock client is not replaced by an older lastId.
    assert of_handshake(auth(pid=PID, offset=garbage, lastId="150")) == Position(None, certain=True)
    assert with_event(of_handshake(auth(pid=PID, offset=garbage)), auth(lastId="150")) == Position(None, certain=True)


def test_an_event_without_last_id_changes_nothing() -> None:
    for position in (None, Position(5), Position(5, certain=True), Position(None)):
        for data in (None, "x", 7, [], ["lastId"], {}, {"lastId": None}, {"userId": "1", "offset": "9", "pid": PID}):
            assert with_event(position, data) is position


def test_numbers_and_strings_are_the_same_position() -> None:
    for offset, last_id in itertools.product((200, "200"), (150, "150")):
        assert of_handshake(auth(pid=PID, offset=offset, lastId=last_id)) == Position(200, certain=True)
        assert of_handshake(auth(lastId=last_id)) == Position(150)


@given(
    any_json | st.fixed_dictionaries({}, optional=dict.fromkeys(("pid", "offset", "lastId"), any_json)),
    any_json | st.fixed_dictionaries({}, optional={"lastId": any_json}),
)
@example({"pid": PID, "offset": "\ud800"}, {"lastId": float("nan")})
@example({"pid": "x.1", "offset": 10**400}, None)
def test_any_json_is_a_position_or_none(handshake: Any, event: Any) -> None:
    pid = pid_of(handshake)
    assert pid is None or pid == handshake["pid"]
    position = with_event(of_handshake(handshake), event)
    if position is not None and position.after is not None:
        assert type(position.after) is int
        assert 0 <= position.after < 10**19


@given(st.integers(0, 10**19 - 1))
def test_offsets_and_pids_that_the_server_sends_are_understood_when_they_come_back(offset: int) -> None:
    assert parse_offset(str(offset)) == parse_offset(offset) == offset
    pid = new_pid(offset)
    assert pid_of({"pid": pid}) == pid
    assert of_handshake({"pid": pid}) == Position(offset, start=offset)


# The offset to replay from, with a head of 1,000


@pytest.mark.parametrize(
    ("pid", "offset", "last_id", "event", "after"),
    [
        (PID, "1000", ABSENT, ABSENT, 1_000),
        (PID, "1001", ABSENT, ABSENT, None),
        (PID, "x", ABSENT, ABSENT, None),
        (PID, "1001", "150", "150", None),
        (ABSENT, ABSENT, "1001", ABSENT, None),
        (ABSENT, ABSENT, "x", ABSENT, None),
        # A client that has received nothing since it started: a wrong lastId does not matter.
        (PID, ABSENT, "x", ABSENT, 100),
        (PID, ABSENT, "1001", ABSENT, 100),
        (PID, ABSENT, ABSENT, "undefined", 100),
        (PID, ABSENT, ABSENT, "1001", 100),
        (PID, ABSENT, "150", "1001", 100),
        (PID, ABSENT, "150", ABSENT, 150),
        ("x.1001", ABSENT, ABSENT, ABSENT, None),
        ("x.1001", ABSENT, "x", ABSENT, None),
        ("x.1001", ABSENT, "150", ABSENT, 150),
    ],
)
def test_the_replay_begins_at_an_offset_up_to_the_head(
    pid: Any, offset: Any, last_id: Any, event: Any, after: int | None
) -> None:
    position = with_event(of_handshake(auth(pid=pid, offset=offset, lastId=last_id)), auth(lastId=event))
    assert position is not None
    assert position.within(1_000) == after
