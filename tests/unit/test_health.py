"""Health checks: at most once a second, and what they report."""

import threading
import time
from pathlib import Path

import pytest

from socket_server import health as module
from socket_server.errors import InboxUnavailable
from socket_server.health import Checks, Health
from socket_server.inbox.inbox import Retention
from socket_server.inbox.sqlite.file import SqliteFile


class Part:
    """A part that works unless `failure` is set."""

    def __init__(self) -> None:
        self.checks = 0
        self.failure: Exception | None = None

    def check(self) -> None:
        self.checks += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """No result is kept."""
    monkeypatch.setattr(module, "KEPT_S", 0.0)


def test_without_parts_the_result_is_good() -> None:
    assert Health({}).checks() == Checks(True, {})


def test_the_first_result_is_checked() -> None:
    part = Part()
    part.failure = InboxUnavailable("the disk is full; make room")
    assert Health({"inbox": part.check}).checks() == Checks(False, {"inbox": "the disk is full; make room"})


@pytest.mark.usefixtures("no_cache")
def test_each_part_is_reported_by_name() -> None:
    inbox, redis = Part(), Part()
    health = Health({"inbox": inbox.check, "redis": redis.check})
    assert health.checks() == Checks(True, {"inbox": "ok", "redis": "ok"})
    redis.failure = InboxUnavailable("Redis does not answer; start it")
    assert health.checks() == Checks(False, {"inbox": "ok", "redis": "Redis does not answer; start it"})
    inbox.failure, redis.failure = redis.failure, None
    assert health.checks() == Checks(False, {"inbox": "Redis does not answer; start it", "redis": "ok"})
    inbox.failure = None
    assert health.checks() == Checks(True, {"inbox": "ok", "redis": "ok"})


def test_the_parts_are_checked_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    part = Part()
    health = Health({"inbox": part.check})
    for _ in range(100):
        assert health.checks().good
    assert part.checks == 1
    part.failure = InboxUnavailable("gone")
    now[0] += module.KEPT_S - 0.01
    assert health.checks().good
    now[0] += 0.02
    assert not health.checks().good
    assert not health.checks().good
    assert part.checks == 2


def test_a_result_is_kept_from_the_end_of_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checked: list[float] = []

    def slow() -> None:
        checked.append(now[0])
        now[0] += 8.0

    health = Health({"inbox": slow})
    health.checks()
    health.checks()
    assert checked == [1_000.0]


def test_concurrent_calls_share_one_check() -> None:
    results: list[Checks] = []
    started, release = threading.Event(), threading.Event()
    checked: list[int] = []

    def slow() -> None:
        checked.append(1)
        started.set()
        assert release.wait(10)

    health = Health({"inbox": slow})
    threads = [threading.Thread(target=lambda: results.append(health.checks())) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    release.set()
    for thread in threads:
        thread.join()
    assert results == [Checks(True, {"inbox": "ok"})] * 8
    assert len(checked) == 1


@pytest.mark.usefixtures("no_cache")
def test_a_change_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._log, "propagate", True)
    part = Part()
    health = Health({"inbox": part.check})
    for failure, lines in ((None, 0), (InboxUnavailable("gone"), 1), (InboxUnavailable("gone"), 1), (None, 2), (None, 2)):
        part.failure = failure
        health.checks()
        assert len(caplog.records) == lines


@pytest.mark.usefixtures("no_cache")
def test_an_unexpected_error_is_raised() -> None:
    part = Part()
    health = Health({"inbox": part.check})
    part.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        health.checks()
    part.failure = None
    assert health.checks().good


@pytest.mark.usefixtures("no_cache")
def test_a_real_inbox_is_good_again_when_it_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").touch()  # a file where its directory should be
    inbox = SqliteFile(str(tmp_path / "data" / "inbox.db"), Retention())
    health = Health({"inbox": inbox.check})
    checks = health.checks()
    assert not checks.good
    assert "inbox.db" in checks.texts["inbox"]
    (tmp_path / "data").unlink()
    assert health.checks() == Checks(True, {"inbox": "ok"})
    inbox.close()
