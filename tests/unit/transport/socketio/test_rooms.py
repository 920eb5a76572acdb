"""Rooms: which connections receive an emit."""

import json
from typing import Any

import pytest

from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.rooms import Rooms
from tests.unit.fakes import RecordingSession, connection


def filled(count: int = 3) -> tuple[Rooms, list[Connection], list[RecordingSession]]:
    rooms = Rooms()
    pairs = [connection(f"s{number}") for number in range(count)]
    for each, _ in pairs:
        rooms.add(each)
    return rooms, [each for each, _ in pairs], [session for _, session in pairs]


def received(sessions: list[RecordingSession]) -> list[list[Any]]:
    return [[json.loads(text[2:]) for text in session.texts] for session in sessions]


def test_an_emit_without_a_room_reaches_every_connection() -> None:
    rooms, _, sessions = filled()
    rooms.emit("x", {"a": 1}, "/")
    assert received(sessions) == [[["x", {"a": 1}]]] * 3


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (None, ["x", None]),
        ("a", ["x", "a", None]),
        (("a", 1), ["x", "a", 1]),
        ((1, "a"), ["x", 1, "a", None]),
        ([1, 2], ["x", [1, 2]]),
        ((), ["x", None]),
    ],
)
def test_a_tuple_is_several_arguments_and_no_event_ends_in_a_string(data: Any, event: list[Any]) -> None:
    rooms, _, sessions = filled(1)
    rooms.emit("x", data, "/")
    assert received(sessions) == [[event]]


def test_an_emit_to_a_sid_reaches_that_connection_alone() -> None:
    rooms, _, sessions = filled()
    rooms.emit("x", None, "/", to="s1")
    rooms.emit("x", None, "/", room="s1")
    assert [len(session.packets) for session in sessions] == [0, 2, 0]


def test_an_emit_to_a_room_reaches_its_members_except_those_skipped() -> None:
    rooms, _, sessions = filled()
    for sid in ("s0", "s1", "s2"):
        rooms.enter_room(sid, "/", "blue")
    rooms.emit("x", None, "/", room="blue", skip_sid="s0")
    rooms.emit("x", None, "/", room="blue", skip_sid=["s0", "s1"])
    assert [len(session.packets) for session in sessions] == [0, 1, 2]


def test_a_connection_in_several_of_the_rooms_receives_once() -> None:
    rooms, _, sessions = filled()
    for room in ("blue", "green"):
        rooms.enter_room("s0", "/", room)
    rooms.enter_room("s1", "/", "green")
    rooms.emit("x", None, "/", room=["blue", "green", "s0", "unknown"])
    assert [len(session.packets) for session in sessions] == [1, 1, 0]


def test_an_emit_is_encoded_once_for_all() -> None:
    rooms, _, sessions = filled()
    rooms.emit("x", None, "/")
    assert len({id(session.packets[0]) for session in sessions}) == 1


def test_attachments_follow_their_event() -> None:
    rooms, _, sessions = filled(1)
    rooms.emit("x", b"\x01\x02", "/")
    text, attachment = sessions[0].packets
    assert text.text == '451-["x",{"_placeholder":true,"num":0}]'
    assert (attachment.binary, attachment.payload) == (True, b"\x01\x02")


def test_a_callback_gets_the_answer_of_each_connection() -> None:
    rooms, _, sessions = filled(2)
    answers: list[Any] = []
    rooms.emit("x", None, "/", callback=lambda *answer: answers.append(answer))
    numbers = [int(session.texts[0][2:].partition("[")[0]) for session in sessions]
    for sid, number in zip(("s0", "s1"), numbers, strict=True):
        rooms.trigger_callback(sid, number, [sid])
        rooms.trigger_callback(sid, number, [sid])  # ignored: it was acknowledged
    assert answers == [("s0",), ("s1",)]


def test_leaving_and_closing_end_membership() -> None:
    rooms, _, _ = filled()
    for sid in ("s0", "s1"):
        rooms.enter_room(sid, "/", "blue")
    rooms.leave_room("s0", "/", "blue")
    rooms.leave_room("s0", "/", "blue")
    rooms.leave_room("unknown", "/", "nothing")
    assert [each.sid for each in rooms.members("blue")] == ["s1"]
    assert rooms.get_rooms("s0", "/") == ["s0"]
    assert set(rooms.get_rooms("s1", "/")) == {"s1", "blue"}
    rooms.close_room("blue", "/")
    rooms.close_room("blue", "/")
    assert rooms.members("blue") == []
    assert rooms.get_rooms("s1", "/") == ["s1"]


def test_a_removed_connection_leaves_nothing_behind() -> None:
    rooms, (first, *_), _ = filled()
    rooms.enter_room("s0", "/", "blue")
    rooms.emit("x", None, "/", to="s0", callback=lambda *_: None)
    assert rooms.remove(first)
    assert first.ended
    assert not rooms.remove(first)
    assert rooms.members("blue") == []
    assert rooms._members == {}
    assert "s0" not in rooms.callbacks
    assert [each.sid for each in rooms.members(None)] == ["s1", "s2"]


def test_a_sid_without_a_connection_cannot_enter() -> None:
    rooms, _, _ = filled()
    with pytest.raises(ValueError, match="not connected"):
        rooms.enter_room("unknown", "/", "blue")
    assert rooms.members("blue") == []


def test_a_connection_without_rooms_costs_nothing_here() -> None:
    rooms, connections, _ = filled(10)
    assert rooms._members == {}
    assert all(each.rooms is None for each in connections)
