"""Broadcaster: a notification is stored, then delivered; each connection gets its notifications in offset order."""

import _thread
import itertools
import json
import threading
import time
from pathlib import Path

import pytest

from socket_server.inbox.inbox import Entry, InboxUnavailable, Record, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.sqlite.client import SqliteClient
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.notifications import delivery_queue
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.report import Report
from socket_server.sessions import SessionManager
from socket_server.transport.socketio import packets
from tests.unit.fakes import connection
from tests.unit.notifications.broadcasting import (
    Forgetful,
    Publishers,
    Slow,
    broadcast,
    held_up,
    kept,
    offsets,
    online,
    until,
)

# Delivery


def test_every_connection_of_the_users_gets_the_notification_and_its_offset() -> None:
    broadcaster, recorded = online("1", "1", "2", "3")
    report = broadcaster.send(broadcast("1", "2", notification={"title": "שלום"}))
    expected = ["notification", {"title": "שלום"}, str(report.offset)]
    assert [session.events for session in (*recorded["1"], *recorded["2"])] == [[expected]] * 3
    assert recorded["3"][0].events == []


def test_the_report_counts_users_connections_and_requested_users() -> None:
    broadcaster, _ = online("1", "1", "2")
    report = broadcaster.send(Broadcast(("1", "2", "offline"), 5, b"{}", None))
    assert report.to_json() == {
        "success": True,
        "deliveredTo": 2,
        "totalSockets": 3,
        "requestedUsers": 5,
        "id": str(broadcaster.head),
    }


def test_a_connection_that_has_ended_is_not_counted() -> None:
    broadcaster, _ = online("1", "1", "2", broken=("2",))
    report = broadcaster.send(broadcast("1", "2"))
    assert (report.delivered_to, report.total_sockets) == (1, 2)


def test_without_a_connection_a_broadcast_gets_an_offset_and_is_no_error() -> None:
    broadcaster, _ = online()
    before = broadcaster.head
    report = broadcaster.send(broadcast("1"))
    assert (report.delivered_to, report.total_sockets, report.requested_users) == (0, 0, 1)
    assert report.offset > before
    assert broadcaster.head == report.offset


def test_one_encoding_is_shared_by_all_connections() -> None:
    broadcaster, recorded = online(*(str(number) for number in range(50)))
    broadcaster.send(broadcast(*recorded))
    assert len({id(session.packets[0]) for sessions in recorded.values() for session in sessions}) == 1


def test_the_notification_is_delivered_byte_for_byte() -> None:
    broadcaster, recorded = online("1")
    raw = b'{ "n" : 1.0,"big":123456789012345678901234567890 }'
    report = broadcaster.send(Broadcast(("1",), 1, raw, None))
    assert recorded["1"][0].packets[0].payload == b'42["notification",%b,"%d"]' % (raw, report.offset)


def test_broadcasts_sent_together_are_delivered_in_order_and_each_is_reported() -> None:
    broadcaster, recorded = online("1", "2")
    given = [broadcast(user, notification={"n": number}) for number, user in enumerate("1212")]
    reports = broadcaster.send_all([*given, broadcast("1", "2", notification={"n": 4})])
    assert [isinstance(report, Report) and report.total_sockets for report in reports] == [1, 1, 1, 1, 2]
    seen = [[event[1]["n"] for event in recorded[user][0].events] for user in "12"]
    assert seen == [[0, 2, 4], [1, 3, 4]]
    assert broadcaster.send_all([]) == []


def test_with_many_publishers_every_connection_gets_increasing_offsets(tmp_path: Path) -> None:
    inbox = SqliteClient(str(tmp_path / "inbox.db"), Retention())
    try:
        broadcaster, recorded = online(*(str(number % 10) for number in range(30)), inbox=inbox)
        reports: list[int] = []

        def publish() -> None:
            reports.extend([broadcaster.send(broadcast(*recorded)).offset for _ in range(100)])

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(reports)) == 800
        for session in itertools.chain.from_iterable(recorded.values()):
            assert offsets(session) == sorted(reports)
        assert [each.offset for each in kept(inbox, "3").notifications] == sorted(reports)
    finally:
        inbox.close()


# Storing


def test_what_was_sent_is_in_the_inbox_under_its_offset() -> None:
    inbox = MemoryInbox(Retention())
    broadcaster, _ = online("1", inbox=inbox)
    report = broadcaster.send(broadcast("1", "offline", notification={"title": "x"}))
    for user in ("1", "offline"):
        (stored,) = kept(inbox, user).notifications
        assert (stored.offset, json.loads(stored.notification)) == (report.offset, {"title": "x"})


def test_a_notification_without_time_to_live_is_delivered_and_not_kept() -> None:
    inbox = MemoryInbox(Retention())
    broadcaster, recorded = online("1", inbox=inbox)
    report = broadcaster.send(broadcast("1", ttl_s=0))
    assert offsets(recorded["1"][0]) == [report.offset]
    assert kept(inbox, "1").total == 0


def test_nothing_is_delivered_before_it_is_stored() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    publishers.send(broadcast("1"))
    time.sleep(0.05)
    assert recorded["1"][0].events == []
    publishers.join()
    assert len(recorded["1"][0].events) == 1


def test_a_store_that_cannot_be_opened_accepts_nothing(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    inbox = SqliteFile(str(tmp_path / "a file" / "inbox.db"), Retention())
    sessions = SessionManager(max_per_user=20)
    added, session = connection()
    sessions.add("1", added)
    broadcaster = Broadcaster(sessions, inbox, 7)
    with pytest.raises(InboxUnavailable, match="directory"):
        broadcaster.send(broadcast("1"))
    assert session.events == []
    assert broadcaster.head == 7


def test_what_another_process_has_stored_is_delivered_before_what_is_stored_now(tmp_path: Path) -> None:
    path = str(tmp_path / "inbox.db")
    inbox, other = SqliteFile(path, Retention()), SqliteFile(path, Retention())
    broadcaster, recorded = online("1", "2", inbox=inbox)
    other.open()
    foreign = [other.append([Entry((user,), b'{"from":"other"}')]).outcomes[0] for user in ("1", "2", "1", "nobody")]
    report = broadcaster.send(broadcast("1", notification={"from": "us"}))
    assert offsets(recorded["1"][0]) == [foreign[0], foreign[2], report.offset]
    assert [event[1]["from"] for event in recorded["1"][0].events] == ["other", "other", "us"]
    assert offsets(recorded["2"][0]) == [foreign[1]]
    later = other.append([Entry(("2",), b"{}")]).outcomes[0]
    broadcaster.catch_up()
    assert offsets(recorded["2"][0]) == [foreign[1], later]
    assert broadcaster.head == later
    broadcaster.catch_up()
    assert len(recorded["2"][0].events) == 2
    for each in (inbox, other):
        each.close()


def test_notifications_of_other_nodes_are_delivered_once() -> None:
    broadcaster, recorded = online("1", "2")
    head = broadcaster.head
    records = [Record(head + 1, ("1",), b'"a"', head), Record(head + 2, ("1", "2"), b'"b"', head + 1)]
    broadcaster.deliver(records)
    broadcaster.deliver(records)
    assert offsets(recorded["1"][0]) == [head + 1, head + 2]
    assert offsets(recorded["2"][0]) == [head + 2]


# Joining


def test_an_admitted_connection_gets_everything_after_the_returned_head() -> None:
    broadcaster, _ = online()
    before = broadcaster.send(broadcast("1"))
    added, session = connection()
    head, evicted = broadcaster.admit("1", added)
    assert (head, evicted) == (before.offset, None)
    after = broadcaster.send(broadcast("1"))
    assert offsets(session) == [after.offset]


def test_a_connection_admitted_during_broadcasts_misses_nothing_and_gets_nothing_twice() -> None:
    inbox = MemoryInbox(Retention(max_per_user=100_000))
    broadcaster, _ = online(inbox=inbox)
    going = threading.Event()

    def publish() -> None:
        while not going.is_set():
            broadcaster.send(broadcast("1"))

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    admitted = []
    for _ in range(15):
        added, session = connection()
        admitted.append((session, *broadcaster.admit("1", added)))
        time.sleep(0.005)
    going.set()
    for thread in threads:
        thread.join()
    everything = [each.offset for each in inbox.since("1", 0, None, 10**6, 10**9).notifications]
    for session, head, _ in admitted:
        assert offsets(session) == [offset for offset in everything if offset > head]


def test_above_the_limit_the_oldest_connection_of_the_user_is_evicted() -> None:
    broadcaster, recorded = online(*["1"] * 20)
    added, _ = connection()
    _, evicted = broadcaster.admit("1", added)
    assert evicted is not None
    assert evicted.eio_socket is recorded["1"][0]


# If the answer of an append is lost


@pytest.fixture
def forgetful(tmp_path: Path) -> Forgetful:
    return Forgetful(SqliteFile(str(tmp_path / "inbox.db"), Retention()))


def test_after_a_lost_answer_the_notification_is_delivered_before_its_repeat_is_answered(forgetful: Forgetful) -> None:
    broadcaster, recorded = online("ada", inbox=forgetful)
    forgetful.mute = True
    with pytest.raises(InboxUnavailable):
        broadcaster.send(broadcast("ada", notification={"n": 1}, key="key"))
    forgetful.mute = False
    repeated = broadcaster.send(broadcast("ada", notification={"n": 1}, key="key"))
    assert (repeated.delivered_to, repeated.total_sockets) == (1, 1)
    [session] = recorded["ada"]
    assert [event[1] for event in session.events] == [{"n": 1}]
    assert offsets(session) == [repeated.offset]


def test_after_a_lost_answer_the_notification_is_delivered_before_newer_ones(forgetful: Forgetful) -> None:
    broadcaster, recorded = online("ada", "bob", inbox=forgetful)
    forgetful.mute = True
    for n in range(3):
        with pytest.raises(InboxUnavailable):
            broadcaster.send(broadcast("ada", "bob", notification={"n": n}))
    forgetful.mute = False
    last = broadcaster.send(broadcast("bob", notification={"n": 3}))
    assert [event[1]["n"] for event in recorded["ada"][0].events] == [0, 1, 2]
    assert [event[1]["n"] for event in recorded["bob"][0].events] == [0, 1, 2, 3]
    assert offsets(recorded["bob"][0]) == sorted(set(offsets(recorded["bob"][0])))
    assert broadcaster.head == last.offset


def test_after_a_lost_answer_catching_up_delivers_the_notification_once(forgetful: Forgetful) -> None:
    broadcaster, recorded = online("ada", inbox=forgetful)
    forgetful.mute = True
    with pytest.raises(InboxUnavailable):
        broadcaster.send(broadcast("ada", notification={"n": 1}))
    with pytest.raises(InboxUnavailable):
        broadcaster.catch_up()
    forgetful.mute = False
    broadcaster.catch_up()
    broadcaster.catch_up()
    assert [event[1] for event in recorded["ada"][0].events] == [{"n": 1}]


# Writing


def test_while_a_large_broadcast_is_written_the_next_ones_are_stored_and_written_after_it() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    inbox.permitted.set()
    broadcaster, recorded = online("1", "2", inbox=inbox)
    [slow], [other] = recorded["1"], recorded["2"]
    writing, go_on = held_up(slow)
    crowd = tuple(str(number) for number in range(1, 300))
    reports: list[Report] = []
    threads = [
        threading.Thread(
            target=lambda users=users, n=n: reports.append(broadcaster.send(broadcast(*users, notification=n)))
        )
        for n, users in enumerate([crowd, ("2",), crowd])
    ]
    threads[0].start()
    assert writing.wait(10)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(inbox.batches) == 3)
    assert other.packets == []
    assert broadcaster.head > 0
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(reports) == 3
    broadcaster.wind_down()
    for session in (slow, other):
        assert offsets(session) == sorted(set(offsets(session)))
    assert len(other.packets) == 3
    assert len(slow.packets) == 2


def test_a_small_broadcast_that_is_stored_together_with_large_ones_is_written_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox = Slow(MemoryInbox(Retention()))
    crowd = tuple(str(number) for number in range(1, 300))
    broadcaster, recorded = online(*crowd, "one", "two", inbox=inbox)
    monkeypatch.setattr(broadcaster._queue, "start_flusher", lambda: True)
    publishers = Publishers(broadcaster, inbox)
    for users in (crowd, crowd, ("one",), crowd, ("two", "7"), crowd):
        publishers.send(broadcast(*users))
    publishers.join()
    assert inbox.batches == [1, 5]
    counts = {user: len(session.packets) for user, [session] in recorded.items()}
    assert {user for user, count in counts.items() if count} == {"one", "two", "7"}
    broadcaster.wind_down()
    for user in crowd:
        [session] = recorded[user]
        assert len(session.packets) == (5 if user == "7" else 4)
        assert offsets(session) == sorted(offsets(session))


def test_after_an_error_between_storing_and_delivery_the_enqueued_notifications_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", "2", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    for notification in ("first", "x" * 20_000, "fails"):
        publishers.send(broadcast("1", notification=notification))
    encode = packets.encode_notification

    def encode_some(notification: bytes, offset: int) -> packets.Packet:
        if b"fails" in notification:
            raise RuntimeError("a fault")
        return encode(notification, offset)

    monkeypatch.setattr(packets, "encode_notification", encode_some)
    publishers.join()
    until(lambda: len(recorded["1"][0].packets) == 2)


def test_above_the_high_water_mark_only_publishers_to_many_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small broadcast and a large one that are stored together are one batch; only the large one waits for room."""
    monkeypatch.setattr(delivery_queue, "HIGH_WATER_BYTES", 0)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)  # a flusher that does not get to run
    inbox = Slow(MemoryInbox(Retention()))
    crowd = tuple(str(number) for number in range(1, 300))
    broadcaster, recorded = online(*crowd, "one", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    for users in (("one",), ("one",), crowd, ("one",)):
        publishers.send(broadcast(*users))
    inbox.permitted.set()
    until(lambda: len(publishers.outcomes) == 3)
    assert sorted(publishers.outcomes) == [0, 1, 3]
    assert inbox.batches == [1, 3]
    assert len(recorded["one"][0].packets) == 3
    broadcaster.wind_down()
    assert {len(recorded[user][0].packets) for user in crowd} == {1}
    broadcaster._queue._wake_publishers()
    assert len(publishers.join()) == 4


# Packets at the head


def test_what_is_sent_at_the_head_comes_after_everything_up_to_it_and_waits_for_no_other_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = tuple(str(number) for number in range(1, 300))
    broadcaster, recorded = online(*crowd)
    monkeypatch.setattr(broadcaster._queue, "start_flusher", lambda: True)
    first = broadcaster.send(broadcast(*crowd))
    [session] = recorded["7"]
    [made] = broadcaster._sessions.connections_of(["7"]).connections
    broadcaster.send_at_head(made, lambda head: packets.encode_event("refreshed", {"lastId": str(head)}))
    last = broadcaster.send(broadcast(*crowd))
    assert [len(each.packets) for user, [each] in recorded.items() if user != "7"] == [0] * 298
    broadcaster.wind_down()
    expected = [
        ["notification", {}, str(first.offset)],
        ["refreshed", {"lastId": str(first.offset)}],
        ["notification", {}, str(last.offset)],
    ]
    assert session.events == expected


def test_what_is_sent_at_the_head_does_not_wait_for_an_append() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    head = broadcaster.head
    publishers.send(broadcast("1"))
    [made] = broadcaster._sessions.connections_of(["1"]).connections
    broadcaster.send_at_head(made, lambda head: packets.encode_event("refreshed", {"lastId": str(head)}))
    assert not inbox.permitted.is_set()
    assert recorded["1"][0].events == [["refreshed", {"lastId": str(head)}]]
    [report] = publishers.join()
    assert isinstance(report, Report)
    assert recorded["1"][0].events[1:] == [["notification", {}, str(report.offset)]]


def test_what_is_sent_at_the_head_to_a_recovering_connection_comes_after_its_replay() -> None:
    broadcaster, _ = online()
    added, session = connection()
    added.hold()
    broadcaster.admit("1", added)
    live = broadcaster.send(broadcast("1"))
    broadcaster.send_at_head(added, lambda head: packets.encode_event("refreshed", {"lastId": str(head)}))
    assert session.packets == []
    added.release()
    assert session.events == [["notification", {}, str(live.offset)], ["refreshed", {"lastId": str(live.offset)}]]
