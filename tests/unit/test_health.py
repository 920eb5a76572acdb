"""How the parts outside this process are: asked when somebody wants to know, and no more often than once a second."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from socket_server import health as module
from socket_server.errors import InboxUnavailable
from socket_server.health import Checks, Health
from socket_server.inbox.inbox import Retention
from socket_server.inbox.sqlite.file import SqliteFile


class Part:
    """A part that is well until it is told to fail."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None

    def check(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered."""
    monkeypatch.setattr(module, "KEPT_S", 0.0)


def test_without_parts_all_is_well() -> None:
    assert Health({}).checks() == Checks(True, {})


def test_the_first_answer_is_the_parts_own() -> None:
    part = Part()
    part.failure = InboxUnavailable("the disk is full; make room")
    assert Health({"inbox": part.check}).checks() == Checks(False, {"inbox": "the disk is full; make room"})


@pytest.mark.usefixtures("always")
def test_one_part_that_fails_is_named_with_its_reason_beside_those_that_are_well() -> None:
    inbox, redis = Part(), Part()
    health = Health({"inbox": inbox.check, "redis": redis.check})
    assert health.checks() == Checks(True, {"inbox": "ok", "redis": "ok"})
    redis.failure = InboxUnavailable("Redis does not answer; start it")
    assert health.checks() == Checks(False, {"inbox": "ok", "redis": "Redis does not answer; start it"})
    inbox.failure, redis.failure = redis.failure, None
    assert health.checks() == Checks(False, {"inbox": "Redis does not answer; start it", "redis": "ok"})
    inbox.failure = None
    assert health.checks() == Checks(True, {"inbox": "ok", "redis": "ok"})


def test_however_often_it_is_asked_the_parts_are_asked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    part = Part()
    health = Health({"inbox": part.check})
    for _ in range(100):
        assert health.checks().good
    assert part.asked == 1
    part.failure = InboxUnavailable("gone")
    now[0] += module.KEPT_S - 0.01
    assert health.checks().good
    now[0] += 0.02
    assert not health.checks().good
    assert not health.checks().good
    assert part.asked == 2


def test_a_second_begins_when_the_parts_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asked: list[float] = []

    def slow() -> None:
        asked.append(now[0])
        now[0] += 8.0

    health = Health({"inbox": slow})
    health.checks()
    health.checks()
    assert asked == [1_000.0]


def test_many_who_ask_at_once_ask_a_slow_part_once() -> None:
    answers: list[Checks] = []
    release = threading.Event()
    asked: list[int] = []

    def slow() -> None:
        asked.append(1)
        assert release.wait(10)

    health = Health({"inbox": slow})
    threads = [threading.Thread(target=lambda: answers.append(health.checks())) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    release.set()
    for thread in threads:
        thread.join()
    assert answers == [Checks(True, {"inbox": "ok"})] * 8
    assert len(asked) == 1


@pytest.mark.usefixtures("always")
def test_the_log_tells_a_change_and_no_repeat(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._log, "propagate", True)
    part = Part()
    health = Health({"inbox": part.check})
    for failure, lines in ((None, 0), (InboxUnavailable("gone"), 1), (InboxUnavailable("gone"), 1), (None, 2), (None, 2)):
        part.failure = failure
        health.checks()
        assert len(caplog.records) == lines


@pytest.mark.usefixtures("always")
def test_an_error_of_the_programs_own_is_not_taken_for_an_answer() -> None:
    part = Part()
    health = Health({"inbox": part.check})
    part.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        health.checks()
    part.failure = None
    assert health.checks().good


@pytest.mark.usefixtures("always")
def test_a_real_inbox_is_well_again_as_soon_as_it_can_be_written(tmp_path: Path) -> None:
    away: Callable[[], object] = (tmp_path / "data").unlink
    (tmp_path / "data").touch()  # a file where its directory should be
    inbox = SqliteFile(str(tmp_path / "data" / "inbox.db"), Retention())
    health = Health({"inbox": inbox.check})
    checks = health.checks()
    assert not checks.good
    assert "inbox.db" in checks.texts["inbox"]
    away()
    assert health.checks() == Checks(True, {"inbox": "ok"})
    inbox.close()
