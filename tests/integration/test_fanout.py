"""A broadcast to many connections of a real server, with io_uring and without."""

from pathlib import Path

import pytest

from tests.integration.conftest import Opens
from tests.servers import RunningServer, mint, running


def rings(server: RunningServer) -> int:
    """Return how many io_urings the worker of a server holds open."""
    master = server.process.pid
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    links = [link.readlink() for worker in workers for link in Path(f"/proc/{worker}/fd").iterdir()]
    return sum("io_uring" in str(link) for link in links)


@pytest.mark.parametrize("setting", ["on", "off"])
def test_everyone_receives_every_broadcast_in_order(tmp_path: Path, opens: Opens, setting: str) -> None:
    with running(tmp_path, IO_URING=setting) as server:
        clients = [opens(server) for _ in range(40)]
        for number, client in enumerate(clients):
            client.sign_in({"token": mint(str(number))})
        everyone = [str(number) for number in range(40)]
        for number in range(20):
            report = server.broadcast(everyone, {"n": number}).json()
            assert (report["deliveredTo"], report["totalSockets"]) == (40, 40)
        for client in clients:
            assert [client.event()[1]["n"] for _ in range(20)] == list(range(20))
        refused = "no io_uring (" in server.log()
        assert (rings(server) > 0) == (setting == "on" and not refused)
