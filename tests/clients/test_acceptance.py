"""The client of the acceptance test, word for word."""

import subprocess

from tests.clients.official import HERE
from tests.servers import RunningServer, mint, wait_for


def test_the_acceptance_client_connects_and_prints_a_hebrew_title(node: str, server: RunningServer) -> None:
    source = (HERE / "acceptance.js").read_text(encoding="utf-8")
    source = source.replace("3001", str(server.port)).replace("…", mint("123"))
    with subprocess.Popen([node, "-e", source], cwd=HERE, stdout=subprocess.PIPE, encoding="utf-8") as client:
        try:
            assert client.stdout is not None
            wait_for(lambda: server.stats()["totalConnections"] == 1, what="the client's connection")
            assert client.stdout.readline() == "Connected!\n"
            answer = server.broadcast(["123"], {"title": {"he": "משימה חדשה", "en": "New task"}})
            assert answer.json()["deliveredTo"] == 1
            assert client.stdout.readline() == "משימה חדשה\n"
        finally:
            client.kill()
