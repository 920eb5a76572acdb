"""The budget of file descriptors."""

import resource
import socket

import pytest

from socket_server.runtime.descriptors import CountedSocket, DescriptorBudget


def test_the_last_descriptors_are_a_reserve() -> None:
    budget = DescriptorBudget(limit=10, reserve=3)
    states = []
    for _ in range(10):
        states.append((budget.low, budget.exhausted))
        budget.take()
    assert states == [(False, False)] * 7 + [(True, False)] * 3
    assert budget.exhausted
    for _ in range(4):
        budget.give_back()
    assert not budget.low


def test_a_counted_socket_is_counted_until_it_is_closed() -> None:
    budget = DescriptorBudget(limit=10, reserve=3)
    ours, theirs = socket.socketpair()
    budget.take()
    counted = CountedSocket(budget, ours.family, ours.type, ours.proto, ours.detach())
    with theirs:
        assert counted.send(b"a byte") == 6
        assert theirs.recv(10) == b"a byte"
        assert budget.held == 1
        counted.close()
        assert budget.held == 0
        assert theirs.recv(10) == b"", "and its descriptor is closed"


@pytest.mark.parametrize("soft", [300, 1_024, 4_096])
def test_the_budget_of_this_process_is_within_its_limit(soft: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        budget = DescriptorBudget.of_this_process()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert soft / 4 < budget.limit < soft
    assert 0 < budget.reserve <= budget.limit / 8
