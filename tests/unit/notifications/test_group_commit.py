"""Group commit: posts that wait at the same time share an append, in order, and each gets its own result."""

import logging
import subprocess
import sys
import threading

import pytest

from socket_server.inbox.inbox import InboxUnavailable, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.notifications.report import Report
from tests.servers import ROOT
from tests.unit.notifications.broadcasting import Publishers, Slow, broadcast, offsets, online, until


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
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_stored_is_delivered_though_publishers_are_killed_at_any_moment() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.notifications.killed", "1", "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
