"""Short runs of the hostile clients and of the soak. `python -m benchmarks.hostile` and `.soak` are the long ones."""

import subprocess
import sys

import pytest

from tests.servers import ROOT, environment


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("attack", ["declared", "pings", "events", "silent", "huge"])
def test_good_connections_are_served_beside_hostile_ones(attack: str) -> None:
    outcome = run("benchmarks.hostile", attack, "--seconds", "2")
    row = outcome.stdout.splitlines()[-1].split("|")
    lost, cut, _, _, grown_mb = (float(cell) for cell in row[2:7])  # latencies are measured on a quiet machine only
    assert (lost, cut) == (0, 0), outcome.stdout + outcome.stderr
    assert grown_mb < 50, outcome.stdout


def test_connections_that_come_and_go_leave_nothing_open() -> None:
    outcome = run("benchmarks.soak", "--seconds", "15")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "left=0" in outcome.stdout
