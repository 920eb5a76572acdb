"""Broadcaster: a notification is stored, then delivered; each connection gets its notifications in offset order."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from socket_server.errors import RequestError
from socket_server.inbox.inbox import Appended, DeliveryCount, Entry, Inbox, InboxUnavailable, Page, Record, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.sqlite.client import SqliteClient
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.report import Report, Result
from socket_server.sessions import SessionManager
from socket_server.transport.socketio import packets
from tests.servers import ROOT
from tests.unit.fakes import RecordingSession, connection


def online(
    *users: str, broken: tuple[str, ...] = (), inbox: Inbox | None = None
) -> tuple[Broadcaster, dict[str, list[RecordingSession]]]:
    """Return a broadcaster with these users connected (named twice: two connections), and the sessions of each user."""
    sessions = SessionManager(max_per_user=20)
    recorded: dict[str, list[RecordingSession]] = {}
    for user in users:
        added, session = connection(broken=user in broken)
        sessions.add(user, added)
        recorded.setdefault(user, []).append(session)
    store = MemoryInbox(Retention()) if inbox is None else inbox
    return Broadcaster(sessions, store, store.open()), recorded


def broadcast(*user_ids: str, notification: Any = None, key: str | None = None, ttl_s: float | None = None) -> Broadcast:
    body = json.dumps(notification or {}).encode()
    return Broadcast(user_ids, len(user_ids), body, ttl_s, key, b"" if key is None else body)


def offsets(session: RecordingSession) -> list[int]:
    return [int(event[-1]) for event in session.events]


def kept(inbox: Inbox, user_id: str) -> Page:
    return inbox.since(user_id, 0, None, 1_000, 10**9)


class Slow:
    """An inbox whose appends wait until `permitted` is set; `batches` has the number of entries of each append."""

    def __init__(self, below: Inbox) -> None:
        self._below = below
        self.permitted = threading.Event()
        self.batches: list[int] = []
        self.failure: Exception | None = None  # of the appends from the second on

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        self.batches.append(len(entries))
        assert self.permitted.wait(30)
        if self.failure is not None and len(self.batches) > 1:
            raise self.failure
        return self._below.append(entries, after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


class Publishers:
    """Threads that broadcast at the same time, and the outcome of each, in the order in which they were started."""

    def __init__(self, broadcaster: Broadcaster, inbox: Slow) -> None:
        self._broadcaster = broadcaster
        self._inbox = inbox
        self._threads: list[threading.Thread] = []
        self.outcomes: dict[int, Result | InboxUnavailable] = {}

    def send(self, given: Broadcast) -> None:
        """Start to send, and return when the broadcast is being stored or waits to be stored."""
        number = len(self._threads)

        def run() -> None:
            try:
                self.outcomes[number] = self._broadcaster.send(given)
            except (RequestError, InboxUnavailable) as error:
                self.outcomes[number] = error

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
        if number == 0:
            until(lambda: self._inbox.batches)
        else:
            until(lambda: len(self._broadcaster._group_commit._waiting) + len(self.outcomes) == number)

    def join(self) -> list[Result | InboxUnavailable]:
        self._inbox.permitted.set()
        for thread in self._threads:
            thread.join()
        return [self.outcomes[number] for number in range(len(self._threads))]


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.001)


def held_up(session: RecordingSession) -> tuple[threading.Event, threading.Event]:
    """Block writes to a session. Return an event that is set when a write has begun, and one that lets writes continue."""
    writing, go_on = threading.Event(), threading.Event()
    send = session.send

    def send_slowly(packet: Any) -> bool:
        writing.set()
        assert go_on.wait(10)
        return send(packet)

    session.send = send_slowly  # type: ignore[method-assign]
    return writing, go_on


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


def test_posts_that_arrive_during_an_append_share_the_next_one_and_each_gets_its_own_report() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", "2", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    for number in range(10):
        publishers.send(broadcast(*("1", "2")[: 1 + number % 2], notification={"n": number}))
    reports = publishers.join()
    assert inbox.batches == [1, 9]
    found = {int(event[-1]): event[1]["n"] for event in recorded["1"][0].events}
    assert [isinstance(report, Report) and found[report.offset] for report in reports] == list(range(10))
    assert [isinstance(report, Report) and report.delivered_to for report in reports] == [1, 2] * 5
    assert offsets(recorded["1"][0]) == sorted(found)


def test_if_the_inbox_fails_every_publisher_of_the_group_gets_the_error_and_nothing_is_delivered() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    inbox.failure = InboxUnavailable("the disk is full; make room")
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    for number in range(6):
        publishers.send(broadcast("1", key=str(number)))
    first, *others = publishers.join()
    assert isinstance(first, Report)
    assert [str(error) for error in others] == ["the disk is full; make room"] * 5
    assert offsets(recorded["1"][0]) == [first.offset]
    assert broadcaster.head == first.offset
    inbox.failure = None
    retried = broadcaster.send(broadcast("1", key="3"))
    assert (retried.delivered_to, offsets(recorded["1"][0])) == (1, [first.offset, retried.offset])


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


# Idempotency keys


def test_a_repeat_gets_the_first_answer_with_its_counts_and_is_delivered_once() -> None:
    broadcaster, recorded = online("1", "1")
    first = broadcaster.send(Broadcast(("1", "2"), 3, b"{}", None, "key", b"digest"))
    late, _ = connection()
    broadcaster.admit("1", late)
    assert broadcaster.send(Broadcast(("1", "2"), 3, b"{}", None, "key", b"digest")) == first
    assert (first.delivered_to, first.total_sockets, first.requested_users) == (1, 2, 3)
    assert [len(session.events) for session in recorded["1"]] == [1, 1]


def test_a_repeat_gets_the_actual_counts_not_those_expected_before_the_delivery() -> None:
    broadcaster, _ = online("1", "2", broken=("2",))
    first = broadcaster.send(broadcast("1", "2", key="key"))
    assert (first.delivered_to, first.total_sockets) == (1, 1)
    assert broadcaster.send(broadcast("1", "2", key="key")) == first


def test_a_repeat_after_a_restart_gets_the_first_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "inbox.db")
    inbox = SqliteFile(path, Retention())
    broadcaster, _ = online("1", "2", broken=("2",), inbox=inbox)
    first = broadcaster.send(broadcast("1", "2", key="key"))
    inbox.close()
    inbox = SqliteFile(path, Retention())
    broadcaster, recorded = online("1", inbox=inbox)
    assert broadcaster.send(broadcast("1", "2", key="key")) == first
    assert recorded["1"][0].events == []
    inbox.close()


def test_a_key_with_another_request_is_refused() -> None:
    broadcaster, recorded = online("1")
    broadcaster.send(broadcast("1", key="key"))
    with pytest.raises(RequestError) as caught:
        broadcaster.send(broadcast("1", notification={"title": "another"}, key="key"))
    assert caught.value.status == 422
    assert len(recorded["1"][0].events) == 1


def test_the_same_key_twice_in_one_batch_is_one_notification() -> None:
    broadcaster, recorded = online("1")
    first, again, other, next_ = broadcaster.send_all(
        [
            broadcast("1", key="key"),
            broadcast("1", key="key"),
            broadcast("1", notification={"title": "another"}, key="key"),
            broadcast("1", key="next"),
        ]
    )
    assert first == again
    assert isinstance(other, RequestError)
    assert other.status == 422
    assert isinstance(first, Report)
    assert isinstance(next_, Report)
    assert offsets(recorded["1"][0]) == [first.offset, next_.offset]


def test_a_key_in_use_is_refused_until_its_request_is_answered() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    for key in ("key", "other", "key", None):
        publishers.send(broadcast("1", key=key))
    first, other, again, none = publishers.join()
    assert isinstance(again, RequestError)
    assert again.status == 409
    assert "key" in again.message
    assert all(isinstance(each, Report) for each in (first, other, none))
    assert len(recorded["1"][0].events) == 3
    assert broadcaster.send(broadcast("1", key="key")) == first


def test_of_a_batch_only_the_broadcasts_whose_keys_are_in_use_are_refused() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    publishers.send(broadcast("1", notification={"n": 0}, key="key"))
    results: list[Result] = []
    given = [broadcast("1", notification={"n": number}, key=key) for number, key in enumerate(["new", "key", None], 1)]
    batch = threading.Thread(target=lambda: results.extend(broadcaster.send_all(given)))
    batch.start()
    until(lambda: broadcaster._group_commit._waiting)
    publishers.join()
    batch.join()
    assert [isinstance(each, RequestError) and each.status for each in results] == [False, 409, False]
    assert [event[1]["n"] for event in recorded["1"][0].events] == [0, 1, 3]
    assert broadcaster.send(given[0]) == results[0]


def test_a_key_can_be_used_again_after_a_failure() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    inbox.permitted.set()
    broadcaster, _ = online("1", inbox=inbox)
    broadcaster.send(broadcast("1"))
    inbox.failure = InboxUnavailable("gone")
    for _ in range(2):
        with pytest.raises(InboxUnavailable):
            broadcaster.send(broadcast("1", key="key"))
    inbox.failure = None
    assert broadcaster.send(broadcast("1", key="key")).delivered_to == 1
    assert not broadcaster._keys_in_use


def test_the_stored_counts_of_a_key_are_decoded() -> None:
    assert DeliveryCount.decode(DeliveryCount(3, 5).encode()) == DeliveryCount(3, 5)
    assert DeliveryCount.decode(b"[3,5,8]") == DeliveryCount(3, 5)


# If the answer of an append is lost


class Forgetful:
    """An inbox that stores its entries and, if `mute`, loses the answer."""

    def __init__(self, below: Inbox) -> None:
        self._below = below
        self.mute = False

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        appended = self._below.append(entries, after)
        if self.mute:
            raise InboxUnavailable("the answer was lost")
        return appended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


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


def test_catching_up_shares_the_append_of_a_waiting_publisher(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    publishers.send(broadcast("1"))
    publishers.send(broadcast("1"))  # stores for the one that catches up, too
    catching_up = threading.Thread(target=broadcaster.catch_up)
    catching_up.start()
    until(lambda: len(broadcaster._group_commit._waiting) == 2)
    reports = publishers.join()
    catching_up.join(10)
    assert offsets(recorded["1"][0]) == [report.offset for report in reports if isinstance(report, Report)]
    assert len(inbox.batches) == 2
    assert not caplog.records


def test_a_repeat_within_a_batch_gets_the_actual_counts_of_the_first() -> None:
    broadcaster, _ = online("ada", "ada", "bob", broken=("ada",))
    twice = broadcast("ada", "bob", key="key")
    first, second = broadcaster.send_all([twice, twice])
    assert isinstance(first, Report)
    assert (first.delivered_to, first.total_sockets) == (1, 1)
    assert second == first


def test_a_key_in_use_is_a_conflict_even_if_the_inbox_is_down(forgetful: Forgetful) -> None:
    broadcaster, _ = online(inbox=forgetful)
    forgetful.mute = True
    broadcaster._keys_in_use.add("key")
    with pytest.raises(RequestError) as refused:
        broadcaster.send(broadcast("ada", key="key"))
    assert refused.value.status == 409


def test_an_unexpected_error_fails_the_posts_of_its_group_only() -> None:
    """The first publisher also stores the posts that arrived during its append; their errors are not its own."""
    inbox = Slow(MemoryInbox(Retention()))
    inbox.failure = RuntimeError("a fault")
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    for _ in range(3):
        publishers.send(broadcast("1"))
    first, *others = publishers.join()
    assert isinstance(first, Report)
    assert [str(error) for error in others] == ["the server failed; its log says why"] * 2
    assert offsets(recorded["1"][0]) == [first.offset]


def test_posts_are_stored_in_order_and_together_up_to_a_number_of_users() -> None:
    inbox = Slow(MemoryInbox(Retention()))
    broadcaster, recorded = online("1", inbox=inbox)
    publishers = Publishers(broadcaster, inbox)
    crowd = tuple(str(number) for number in range(1, 9_000))
    for number, users in enumerate([("1",), ("1",), crowd, ("1",), ("1",), crowd, crowd, ("1",)]):
        publishers.send(broadcast(*users, notification={"n": number}))
    reports = publishers.join()
    assert inbox.batches == [1, 4, 1, 2]
    assert [event[1]["n"] for event in recorded["1"][0].events] == list(range(8))
    assert offsets(recorded["1"][0]) == [report.offset for report in reports if isinstance(report, Report)]


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


def test_what_is_stored_is_delivered_though_publishers_are_killed_at_any_moment() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.notifications.killed", "1", "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]


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


def test_notifications_of_other_nodes_are_delivered_once() -> None:
    broadcaster, recorded = online("1", "2")
    head = broadcaster.head
    records = [Record(head + 1, ("1",), b'"a"', head), Record(head + 2, ("1", "2"), b'"b"', head + 1)]
    broadcaster.deliver(records)
    broadcaster.deliver(records)
    assert offsets(recorded["1"][0]) == [head + 1, head + 2]
    assert offsets(recorded["2"][0]) == [head + 2]
