"""Which worker has a successor."""

import subprocess
import sys

import pytest

from socket_server.workers import reload
from socket_server.workers.reload import ReloadState


@pytest.fixture
def state() -> ReloadState:
    return ReloadState()


def test_a_worker_without_a_reload_has_no_successor(state: ReloadState) -> None:
    successors = state.of_new_worker()
    assert not successors.exist()
    assert not successors.loading()


def test_a_reload_gives_a_successor_that_loads_until_it_serves(state: ReloadState) -> None:
    old = state.of_new_worker()
    old.announce_serving()
    state.announce_reload()
    new = state.of_new_worker()
    assert old.exist()
    assert old.loading()
    assert not new.exist()
    new.announce_serving()
    assert old.exist()
    assert not old.loading()


def test_a_second_reload_succeeds_the_first(state: ReloadState) -> None:
    state.announce_reload()
    first = state.of_new_worker()
    first.announce_serving()
    state.announce_reload()
    assert first.exist()
    assert first.loading()


def test_an_older_worker_that_serves_late_does_not_hide_a_newer_one(state: ReloadState) -> None:
    old = state.of_new_worker()
    state.announce_reload()
    state.of_new_worker().announce_serving()
    old.announce_serving()
    assert not old.loading()


def test_a_new_master_is_a_successor_until_it_ends(state: ReloadState, monkeypatch: pytest.MonkeyPatch) -> None:
    successors = state.of_new_worker()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as master:
        monkeypatch.setattr(reload.os, "getpid", lambda: master.pid)
        state.announce_new_master()
        assert successors.exist()
        master.communicate(b"\n", timeout=10)
    assert not successors.exist()
