"""Load balancing: which worker delays its accept()."""

import pytest

from socket_server.workers import load
from socket_server.workers.load import ACCEPT_DELAY_S, ENDING_DELAY_S, LoadTable, WorkerLoad
from tests.servers import wait_for


@pytest.fixture
def table() -> LoadTable:
    return LoadTable()


@pytest.fixture
def three(table: LoadTable) -> list[WorkerLoad]:
    return [table.of_worker(number) for number in (1, 2, 3)]


def delays(workers: list[WorkerLoad], *held: int) -> list[float]:
    """Let each worker report its connections. Return the delay of each, given all reports."""
    for each, count in zip(workers, held, strict=True):
        each.accept_delay_s(count)
    return [each.accept_delay_s(count) for each, count in zip(workers, held, strict=True)]


@pytest.mark.parametrize(
    ("held", "delayed"),
    [
        ((0, 0, 0), ()),
        ((8, 0, 4), ()),
        ((9, 0, 4), (0,)),
        ((1_000, 1_050, 1_108), ()),
        ((1_000, 1_050, 1_109), (2,)),
        ((50, 0, 50), (0, 2)),
    ],
)
def test_a_worker_that_holds_clearly_more_than_another_delays(
    three: list[WorkerLoad], held: tuple[int, ...], delayed: tuple[int, ...]
) -> None:
    assert delays(three, *held) == [ACCEPT_DELAY_S if number in delayed else 0 for number in range(3)]


def test_a_connection_that_was_delayed_once_is_accepted_unless_the_worker_ends(three: list[WorkerLoad]) -> None:
    assert delays(three, 50, 50, 0) == [ACCEPT_DELAY_S, ACCEPT_DELAY_S, 0]
    assert three[0].accept_delay_s(50, delayed=True) == 0
    three[0].end()
    assert three[0].accept_delay_s(50, delayed=True) == ENDING_DELAY_S


def test_a_single_worker_never_delays(three: list[WorkerLoad]) -> None:
    assert three[0].accept_delay_s(1_000_000) == 0


def test_a_worker_that_ends_leaves_connections_to_the_others_and_is_not_counted(three: list[WorkerLoad]) -> None:
    delays(three, 0, 50, 50)
    three[0].end()
    assert delays(three, 0, 50, 50) == [ENDING_DELAY_S, 0, 0]


def test_workers_that_all_end_accept_what_comes(three: list[WorkerLoad]) -> None:
    for each in three:
        each.end()
    assert delays(three, 50, 0, 0) == [0, 0, 0]


def test_a_worker_that_died_is_not_counted(table: LoadTable, three: list[WorkerLoad]) -> None:
    delays(three, 0, 50, 50)
    table.of_worker(1).end()  # as the master does
    assert three[1].accept_delay_s(50) == 0


def test_a_worker_that_stalls_is_not_counted(three: list[WorkerLoad], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "STALLED_AFTER_S", 0.3)
    delays(three, 0, 50, 50)
    wait_for(lambda: three[1].accept_delay_s(50) == 0, what="the end of the delays")
    three[0].beat()
    assert three[1].accept_delay_s(50) == ACCEPT_DELAY_S


def test_tables_share_nothing(three: list[WorkerLoad]) -> None:
    delays(three, 0, 0, 0)
    assert LoadTable().of_worker(1).accept_delay_s(50) == 0
