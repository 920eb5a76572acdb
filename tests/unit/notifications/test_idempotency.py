"""Idempotency keys: a repeat gets the first answer and is delivered once."""

import threading
from pathlib import Path

import pytest

from socket_server.errors import RequestError
from socket_server.inbox.inbox import DeliveryCount, InboxUnavailable, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.report import Report, Result
from tests.unit.fakes import connection
from tests.unit.notifications.broadcasting import Forgetful, Publishers, Slow, broadcast, offsets, online, until


@pytest.fixture
def forgetful(tmp_path: Path) -> Forgetful:
    return Forgetful(SqliteFile(str(tmp_path / "inbox.db"), Retention()))


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
    broadcaster._keys_in_use.add(("", "key"))
    with pytest.raises(RequestError) as refused:
        broadcaster.send(broadcast("ada", key="key"))
    assert refused.value.status == 409
