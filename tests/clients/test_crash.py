"""Of what /broadcast answered 200 nothing is lost, doubled or out of order, whatever happens to the server or the network.

crash.py runs the same for as long as you like.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.clients.crash import trial

SEED = 20_240_101
DRAIN = {"DRAIN_SECONDS": 1}


@pytest.mark.parametrize(
    ("way", "times", "within_s", "transports", "settings"),
    [
        pytest.param("server", 3, 0.9, (), {}, id="kill -9 of the server"),
        pytest.param("server", 3, 0.9, ("polling",), {}, id="kill -9 of the server, long-polling"),
        pytest.param("worker", 3, 0.9, (), {}, id="kill -9 of the worker"),
        pytest.param("storage", 3, 0.9, (), {}, id="kill -9 of the inbox's process"),
        pytest.param("restart", 2, 0.9, (), DRAIN, id="restart"),
        pytest.param("reload", 2, 0.9, (), DRAIN, id="reload"),
        pytest.param("cut", 6, 0.7, (), {}, id="torn network"),
    ],
)
def test_nothing_is_lost(
    tmp_path: Path,
    node: str,
    way: str,
    times: int,
    within_s: float,
    transports: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    with trial(node, tmp_path, SEED, transports, network=way == "cut", **settings) as running:
        for _ in range(times):
            running.hit(way, within_s=within_s)
        counts = running.finish()
    print(f"seed={SEED} {counts}")
    assert counts.sound, "\n".join([str(counts), *counts.faults])
    assert counts.answered > 100
    assert counts.deliveries > counts.answered
    assert counts.reconnections > 50 or way == "storage"  # whose loss breaks no connection
