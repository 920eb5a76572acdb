"""A short rolling restart; the long ones are by hand: python -m tests.cluster.rolling."""

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.fleet import Fleet, running_fleet
from tests.cluster.rolling import roll

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture(scope="module")
def fleet(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A drain of 2 s in place of 10, and nginx lets go of idle connections that much earlier."""
    sooner = {"keepalive_timeout 5s": "keepalive_timeout 1s"}
    directory = tmp_path_factory.mktemp("fleet")
    with running_fleet(tool("redis-server"), tool("nginx"), directory, sooner, DRAIN_SECONDS=2) as started:
        yield started


def test_nodes_restarted_one_after_the_other_lose_double_and_refuse_nothing(fleet: Fleet, node: str) -> None:
    first, second, third = fleet.nodes
    ways = [("restart", first), ("restart", second), ("reload", third), ("upgrade", first)]
    counts = roll(fleet, node, ways)
    print(counts)
    assert counts.sound, "\n".join([str(counts), *counts.faults[:10]])
    assert counts.posts["with a key"] > 100
    assert counts.posts["without"] > 100
    assert counts.reconnections >= 20
