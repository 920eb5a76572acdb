"""Which worker leaves new connections to others."""

import types
from collections.abc import Iterator

import pytest

from socket_server.workers import load
from socket_server.workers.load import CROWDED_S, LEAVING_S, WorkerLoad
from tests.servers import wait_for


@pytest.fixture
def three() -> Iterator[list[WorkerLoad]]:
    made = [WorkerLoad(number) for number in (1, 2, 3)]
    yield made
    for each in made:
        each.end()


def waits(workers: list[WorkerLoad], *held: int) -> list[float]:
    """Let each tell what it holds, and return how long each waits for the others."""
    for each, count in zip(workers, held, strict=True):
        each.accept_delay_s(count)
    return [each.accept_delay_s(count) for each, count in zip(workers, held, strict=True)]


@pytest.mark.parametrize(
    ("held", "waiting"),
    [
        ((0, 0, 0), ()),
        ((8, 0, 4), ()),
        ((9, 0, 4), (0,)),
        ((1_000, 1_050, 1_108), ()),
        ((1_000, 1_050, 1_109), (2,)),
        ((50, 0, 50), (0, 2)),
    ],
)
def test_who_holds_clearly_more_than_another_leaves_new_ones_to_it(
    three: list[WorkerLoad], held: tuple[int, ...], waiting: tuple[int, ...]
) -> None:
    assert waits(three, *held) == [CROWDED_S if number in waiting else 0 for number in range(3)]


def test_what_others_have_left_is_taken_but_by_one_that_goes(three: list[WorkerLoad]) -> None:
    assert waits(three, 50, 50, 0) == [CROWDED_S, CROWDED_S, 0]
    assert three[0].accept_delay_s(50, waited=True) == 0
    three[0].end()
    assert three[0].accept_delay_s(50, waited=True) == LEAVING_S


def test_who_is_alone_takes_all(three: list[WorkerLoad]) -> None:
    assert three[0].accept_delay_s(1_000_000) == 0


def test_a_worker_that_goes_leaves_all_to_the_others_and_counts_no_more(three: list[WorkerLoad]) -> None:
    waits(three, 0, 50, 50)
    three[0].end()
    assert waits(three, 0, 50, 50) == [LEAVING_S, 0, 0]


def test_workers_that_all_go_take_what_comes(three: list[WorkerLoad]) -> None:
    for each in three:
        each.end()
    assert waits(three, 50, 0, 0) == [0, 0, 0]


def test_a_worker_that_died_is_not_waited_for(three: list[WorkerLoad]) -> None:
    waits(three, 0, 50, 50)
    load.forget(None, types.SimpleNamespace(age=1))
    assert three[1].accept_delay_s(50) == 0


def test_a_worker_that_stands_still_is_not_waited_for(three: list[WorkerLoad], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "STILL_S", 0.3)
    waits(three, 0, 50, 50)
    wait_for(lambda: three[1].accept_delay_s(50) == 0, what="the end of its patience")
    three[0].beat()
    assert three[1].accept_delay_s(50) == CROWDED_S
