"""What a polling client has not fetched is kept for a while after its session has ended."""

import gevent
import pytest

from socket_server.transport.engineio import departed as module
from socket_server.transport.engineio.departed import DepartedSessions
from socket_server.transport.engineio.packets import CLOSE_PACKET, PING_PACKET
from socket_server.transport.engineio.polling_queue import PollingQueue


def queue() -> PollingQueue:
    made = PollingQueue(100)
    made.put(PING_PACKET)
    made.put(CLOSE_PACKET)
    return made


def test_unfetched_packets_are_taken_once() -> None:
    sessions = DepartedSessions()
    sessions.add("a", queue())
    assert "a" in sessions
    assert "b" not in sessions
    assert sessions.take("a") == [PING_PACKET, CLOSE_PACKET]
    assert sessions.take("a") == []
    assert sessions.take("b") == []
    assert "a" in sessions


def test_a_session_is_dropped_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.05)
    sessions = DepartedSessions()
    for _ in range(2):
        sessions.add("a", queue())
        for _ in range(200):
            if "a" not in sessions:
                break
            gevent.sleep(0.01)
        assert len(sessions) == 0
        assert sessions._timer is None


def test_the_oldest_is_dropped_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    sessions = DepartedSessions()
    for sid in "abcde":
        sessions.add(sid, queue())
    assert [sid in sessions for sid in "abcde"] == [False, False, True, True, True]
