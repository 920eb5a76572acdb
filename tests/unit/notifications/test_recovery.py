"""Recovery: the replay comes first, in order and once; if it cannot be completed, nothing live follows."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from socket_server.inbox.inbox import MICROSECONDS, Inbox, Retention, Stored
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.recovery import PAGE, PAGE_BYTES, Recovery
from socket_server.sessions import SessionManager
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.packets import Packet, encode_event
from tests.unit.fakes import RecordingSession, connection

USER = "ada"


class Server:
    """An inbox, a broadcaster and a recovery."""

    def __init__(self, inbox: Inbox | None = None) -> None:
        self.inbox = MemoryInbox(Retention()) if inbox is None else inbox
        self.sessions = SessionManager(max_per_user=20)
        self.broadcaster = Broadcaster(self.sessions, self.inbox, self.inbox.open())
        self.recovery = Recovery(self.inbox)

    def send(self, user_id: str = USER, size: int = 0, ttl_s: float | None = None) -> int:
        notification = json.dumps({"x": "x" * size}).encode()
        return self.broadcaster.send(Broadcast((user_id,), 1, notification, ttl_s)).offset

    def join(self, max_backlog: int = 10**9) -> tuple[Connection, RecordingSession, int]:
        """Return a connection that was admitted and holds, its session, and the head at which it was admitted."""
        made, session = connection(max_backlog=max_backlog)
        made.hold()
        head, _ = self.broadcaster.admit(USER, made)
        return made, session, head

    def recover(self, joined: tuple[Connection, RecordingSession, int], after: int) -> list[Any]:
        """Run a recovery; return the events that were sent to its client."""
        made, session, head = joined
        self.recovery.run(made, USER, after, head, greeting(head))
        return session.events

    def kept(self) -> tuple[Stored, ...]:
        return self.inbox.since(USER, 0, None, 10**6, 10**9).notifications


def greeting(head: int) -> Callable[..., Packet]:
    """Return a shorter form of the greeting of events/handlers.py."""

    def greet(*, recovered: bool, replayed: int) -> Packet:
        return encode_event("auth_success", {"recovered": recovered, "replayed": replayed, "lastId": str(head)})

    return greet


def offsets(events: list[Any]) -> list[int]:
    assert all(event[0] == "notification" for event in events)
    return [int(event[-1]) for event in events]


# What is sent


def test_the_replay_comes_after_the_greeting_in_order_and_byte_for_byte() -> None:
    server = Server()
    start = server.broadcaster.head
    raw = '{ "title" : "שלום", "n":1.0 }'.encode()
    sent = [server.broadcaster.send(Broadcast((USER,), 1, raw, None)).offset for _ in range(3)]
    joined = server.join()
    greeted, *events = server.recover(joined, start)
    assert greeted == ["auth_success", {"recovered": True, "replayed": 3, "lastId": str(sent[-1])}]
    assert offsets(events) == sent
    assert joined[1].packets[1].payload == b'42["notification",%b,"%d"]' % (raw, sent[0])


def test_only_the_notifications_of_the_user_after_the_given_offset_are_replayed() -> None:
    server = Server()
    sent = [server.send() for _ in range(5)]
    server.send("ben")
    assert offsets(server.recover(server.join(), sent[2])[1:]) == sent[3:]
    assert server.recover(server.join(), server.broadcaster.head)[1:] == []


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 7])
def test_each_page_is_sent_when_the_client_has_taken_the_one_before(count: int) -> None:
    server = Server()
    start = server.broadcaster.head
    sent = [server.send() for _ in range(count)]
    joined = server.join()
    made, session, _ = joined
    unsent: list[int] = []
    session.on_wait = lambda: unsent.append(len(session.packets))
    events = server.recover(joined, start)
    assert events[0][1]["replayed"] == count
    assert offsets(events[1:]) == sent
    assert unsent == [1 + taken for taken in range(PAGE, count, PAGE)]
    assert not made.holds


def test_a_page_is_limited_by_its_bytes_too() -> None:
    server = Server()
    start = server.broadcaster.head
    sent = [server.send(size=PAGE_BYTES // 3) for _ in range(4)]
    sent += [server.send(size=3 * PAGE_BYTES), server.send()]
    joined = server.join()
    _, session, _ = joined
    ends: list[int] = []
    session.on_wait = lambda: ends.append(len(session.packets) - 1)
    assert offsets(server.recover(joined, start)[1:]) == sent
    assert ends == [2, 4, 5]


# Broadcasts during a recovery


def test_what_is_broadcast_during_the_replay_comes_after_it_and_before_later_broadcasts() -> None:
    server = Server()
    start = server.broadcaster.head
    missed = [server.send() for _ in range(2 * PAGE + 10)]
    joined = server.join()
    held = [server.send() for _ in range(3)]  # before the replay begins
    joined[1].on_wait = lambda: held.append(server.send())
    events = server.recover(joined, start)
    live = [server.send() for _ in range(3)]
    assert len(held) == 5
    assert events[0] == ["auth_success", {"recovered": True, "replayed": len(missed), "lastId": str(missed[-1])}]
    assert offsets(joined[1].events[1:]) == missed + held + live


def test_a_notification_that_is_not_kept_is_delivered_to_a_recovering_connection_too() -> None:
    server = Server()
    start = server.broadcaster.head
    server.send(ttl_s=0)
    missed = server.send()
    joined = server.join()
    live = server.send(ttl_s=0)
    assert offsets(server.recover(joined, start)[1:]) == [missed, live]


def test_recoveries_during_broadcasts_give_each_client_everything_once_and_in_order() -> None:
    server = Server(MemoryInbox(Retention(max_per_user=10**6)))
    start = server.broadcaster.head
    going = threading.Event()

    def publish() -> None:
        while not going.is_set():
            server.send()

    sessions: list[RecordingSession] = []

    def come() -> None:
        for _ in range(5):
            joined = server.join()
            sessions.append(joined[1])
            server.recovery.run(joined[0], USER, start, joined[2], greeting(joined[2]))

    publishers = [threading.Thread(target=publish) for _ in range(2)]
    clients = [threading.Thread(target=come) for _ in range(3)]
    for thread in publishers + clients:
        thread.start()
    for thread in clients:
        thread.join()
    going.set()
    for thread in publishers:
        thread.join()
    everything = [each.offset for each in server.kept()]
    assert len(sessions) == 15
    for session in sessions:
        assert offsets(session.events[1:]) == everything


# Recoveries that cannot be completed


def test_nothing_live_follows_an_unfinished_replay_on_a_connection_that_has_ended() -> None:
    for when in ("before", "while it waits", "while it is written"):
        server = Server()
        start = server.broadcaster.head
        missed = [server.send() for _ in range(2 * PAGE)]
        joined = server.join()
        made, session, _ = joined
        server.send()
        if when == "before":
            session.closed = True
        elif when == "while it waits":
            session.on_wait = lambda session=session: session.close(reason="transport close")  # type: ignore[misc]
        else:
            session.on_wait = lambda session=session: setattr(session, "broken", True)  # type: ignore[misc]
        server.recover(joined, start)
        # A transport that is closing during an upgrade may still take what is sent to it.
        session.closed = session.broken = False
        server.send()
        assert offsets(session.events[1:]) == ([] if when == "before" else missed[:PAGE]), when
        assert made.holds


def test_nothing_live_follows_the_last_page_on_a_connection_that_is_being_closed() -> None:
    server = Server()
    start = server.broadcaster.head
    missed = server.send()
    joined = server.join()
    made, session, head = joined
    server.send()

    def greet(**_: Any) -> Packet:
        made.ended = True  # disconnected, and its transport still takes what is sent
        return greeting(head)(recovered=True, replayed=1)

    server.recovery.run(made, USER, start, head, greet)
    assert offsets(session.events[1:]) == [missed]
    assert made.holds


def test_a_client_that_is_too_slow_for_the_live_notifications_is_closed_and_recovers_the_rest() -> None:
    server = Server()
    start = server.broadcaster.head
    missed = [server.send() for _ in range(2 * PAGE)]
    joined = server.join(max_backlog=10_000)
    _, session, _ = joined
    session.on_wait = lambda: [server.send(size=1_000) for _ in range(20)]
    events = server.recover(joined, start)
    assert session.closures[0] == "slow consumer"
    assert offsets(events[1:]) == missed[:PAGE]
    again = server.join()
    rest = server.recover(again, missed[PAGE - 1])
    assert rest[0][1]["recovered"] is True
    assert offsets(rest[1:]) == [each.offset for each in server.kept()][PAGE:]


def test_a_slow_client_is_closed_if_retention_drops_its_rest_and_its_next_recovery_is_incomplete() -> None:
    server = Server(MemoryInbox(Retention(max_per_user=150)))
    start = server.broadcaster.head
    missed = [server.send() for _ in range(150)]
    joined = server.join()
    made, session, _ = joined
    session.on_wait = lambda: [server.send() for _ in range(101)]  # drops everything that was sent to it, and one more
    events = server.recover(joined, start)
    assert events[0][1]["recovered"] is True
    assert offsets(events[1:]) == missed[:PAGE]
    assert session.closures == ["too slow for its replay"]
    assert made.holds
    rest = server.recover(server.join(), missed[PAGE - 1])
    assert rest[0][1] == {"recovered": False, "replayed": 150, "lastId": str(server.broadcaster.head)}
    assert offsets(rest[1:]) == [each.offset for each in server.kept()]


def test_a_slow_client_is_not_closed_if_retention_drops_only_what_was_sent_to_it() -> None:
    server = Server(MemoryInbox(Retention(max_per_user=150)))
    start = server.broadcaster.head
    missed = [server.send() for _ in range(150)]
    joined = server.join()
    live: list[int] = []
    joined[1].on_wait = lambda: live.extend(server.send() for _ in range(100))
    assert offsets(server.recover(joined, start)[1:]) == missed + live
    assert joined[1].closures == []


def test_if_the_inbox_of_the_user_is_deleted_during_the_replay_the_rest_is_not_sent() -> None:
    server = Server()
    start = server.broadcaster.head
    missed = [server.send() for _ in range(2 * PAGE)]
    joined = server.join()
    joined[1].on_wait = lambda: server.inbox.forget(USER)
    assert offsets(server.recover(joined, start)[1:]) == missed[:PAGE]
    assert joined[1].closures == ["too slow for its replay"]


def test_notifications_that_expire_by_their_ttl_during_the_replay_do_not_count_as_dropped() -> None:
    now = [1_800_000_000 * MICROSECONDS]
    server = Server(MemoryInbox(Retention(), clock=lambda: now[0]))
    start = server.broadcaster.head
    lasting = [server.send() for _ in range(PAGE)]
    fleeting = [server.send(ttl_s=5) for _ in range(PAGE)]
    rest = [server.send() for _ in range(10)]
    joined = server.join()
    joined[1].on_wait = lambda: now.__setitem__(0, now[0] + 6 * MICROSECONDS)
    events = server.recover(joined, start)
    assert events[0][1] == {"recovered": True, "replayed": len(lasting + fleeting + rest), "lastId": str(rest[-1])}
    assert offsets(events[1:]) == lasting + rest
    assert not joined[0].holds


# Positions that the inbox does not reach


def test_if_retention_dropped_some_the_rest_is_replayed_and_recovered_is_false() -> None:
    server = Server(MemoryInbox(Retention(max_per_user=5)))
    start = server.broadcaster.head
    sent = [server.send() for _ in range(8)]
    greeted, *events = server.recover(server.join(), start)
    assert greeted[1] == {"recovered": False, "replayed": 5, "lastId": str(sent[-1])}
    assert offsets(events) == sent[3:]
    greeted, *events = server.recover(server.join(), sent[2])
    assert (greeted[1]["recovered"], offsets(events)) == (True, sent[3:])


def test_for_a_position_before_the_inbox_began_recovered_is_false() -> None:
    server = Server()
    sent = server.send()
    greeted, *events = server.recover(server.join(), 0)
    assert greeted[1]["recovered"] is False
    assert offsets(events) == [sent]


@pytest.mark.parametrize("ahead", [1, MICROSECONDS, 10**19])
def test_for_a_position_in_the_future_recovered_is_false_and_live_notifications_follow(ahead: int) -> None:
    server = Server()
    server.send()
    joined = server.join()
    held = server.send()
    greeted, *events = server.recover(joined, min(joined[2] + 10**9 + ahead, 10**19 - 1))
    live = server.send()
    assert greeted[1] == {"recovered": False, "replayed": 0, "lastId": str(joined[2])}
    assert offsets(joined[1].events[1:]) == [held, live]
    assert offsets(events) == [held]


# An inbox that fails


def corrupt(path: Path) -> None:
    """Replace a database by another file."""
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        each.unlink()
    path.write_bytes(b"no database, but long enough to be looked at" * 100)


def test_an_inbox_that_fails_closes_the_transport_before_any_greeting(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    server = Server(SqliteFile(str(path), Retention()))
    start = server.broadcaster.head
    server.send()
    joined = server.join()
    corrupt(path)
    assert server.recover(joined, start) == []
    assert joined[1].closures == ["inbox unavailable"]
    assert joined[0].holds
    server.inbox.close()


def test_an_inbox_that_fails_between_two_pages_closes_the_transport(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    server = Server(SqliteFile(str(path), Retention()))
    start = server.broadcaster.head
    missed = [server.send() for _ in range(2 * PAGE)]
    joined = server.join()
    joined[1].on_wait = lambda: corrupt(path)
    events = server.recover(joined, start)
    assert offsets(events[1:]) == missed[:PAGE]
    assert joined[1].closures == ["inbox unavailable"]
    assert joined[0].holds
    server.inbox.close()


def test_any_other_failure_closes_the_transport_too() -> None:
    server = Server()
    joined = server.join()

    def greet(**_: Any) -> Packet:
        raise RuntimeError("on purpose")

    server.recovery.run(joined[0], USER, 0, joined[2], greet)
    assert joined[1].closures == ["server error"]
    assert joined[0].holds
