"""The master's shared memory: made once, given to every worker, and told of every reload and every end."""

from types import SimpleNamespace
from typing import Any

import pytest

from socket_server.workers import master


@pytest.fixture
def arbiter() -> Any:
    made = SimpleNamespace(systemd=False, cfg=SimpleNamespace(address=[("127.0.0.1", 3001)]))
    master.start(made)
    return made


def fork(arbiter: Any, age: int) -> Any:
    worker = SimpleNamespace(age=age)
    master.pre_fork(arbiter, worker)
    return worker


def test_all_workers_share_one_memory(arbiter: Any) -> None:
    first, second = fork(arbiter, 1), fork(arbiter, 2)
    assert first.shared_state is second.shared_state
    assert not first.inherited_listeners


def test_a_worker_from_before_a_reload_has_a_successor(arbiter: Any) -> None:
    successors = fork(arbiter, 1).shared_state.reloads.of_new_worker()
    master.on_reload(arbiter)
    assert successors.exist()
    assert not fork(arbiter, 2).shared_state.reloads.of_new_worker().exist()


def test_an_ended_worker_is_not_counted_in_the_load(arbiter: Any) -> None:
    ended, other = fork(arbiter, 1), fork(arbiter, 2)
    ended.shared_state.load.of_worker(1).accept_delay_s(0)
    load = other.shared_state.load.of_worker(2)
    assert load.accept_delay_s(50) > 0
    master.child_exit(arbiter, ended)
    assert load.accept_delay_s(50) == 0
