"""GET /metrics of real servers: access, what it counts, and that it covers all workers."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import Opens
from tests.integration.protocol import TRANSPORTS
from tests.servers import RunningServer, mint, running, wait_for
from tests.workers import COUNT, several_workers, workers

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(server: RunningServer) -> Figures:
    """Return the value of each sample by its name (without the prefix) and labels."""
    answer = server.get("/metrics", headers=server.api_headers)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name.removeprefix("socket_server_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def figure(server: RunningServer, name: str, **labels: str) -> float:
    return scrape(server).get((name, tuple(sorted(labels.items()))), 0)


@pytest.mark.parametrize(
    ("setting", "with_key", "without"),
    [("key", 200, 401), ("open", 200, 200), ("off", 404, 404)],
    ids=lambda each: str(each),
)
def test_the_setting_says_who_may_read_the_metrics(tmp_path: Path, setting: str, with_key: int, without: int) -> None:
    with running(tmp_path, METRICS=setting) as server:
        assert server.get("/metrics", headers=server.api_headers).status_code == with_key
        assert server.get("/metrics").status_code == without


def test_connections_and_authentications_are_counted(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path) as server:
        open_now = [opens(server, transport) for transport in TRANSPORTS]
        for connection in open_now:
            connection.sign_in({"token": mint("7")})
        refused = opens(server)
        refused.connect({"token": mint("7", lifetime_s=-60)})
        refused.refusal()
        figures = scrape(server)
        assert figures["connections", (("transport", "websocket"),)] == 1
        assert figures["connections", (("transport", "polling"),)] == 1
        assert figures["users", ()] == 1
        assert figures["connects_total", ()] == 2
        assert figures["authentications_total", (("result", "success"),)] == 2
        assert figures["authentications_total", (("result", "expired_token"),)] == 1
        for connection in open_now:
            connection.send("41")
        wait_for(
            lambda: figure(server, "disconnects_total", reason="client_disconnect") == 2, what="the count of disconnects"
        )
        assert figure(server, "connections", transport="websocket") == 0


def test_requests_are_counted_by_the_template_of_their_route(shared_server: RunningServer) -> None:
    before = scrape(shared_server)

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return scrape(shared_server).get(key, 0) - before.get(key, 0)

    shared_server.broadcast(["1"], {"title": "x"})
    for path in ("/users/7/notifications", "/users/8/notifications"):
        shared_server.get(path, headers=shared_server.api_headers)
    shared_server.get("/no/such/path")
    shared_server.get("/users/7/connections")
    assert grown("http_requests_total", route="/broadcast", method="POST", status="200") == 1
    assert grown("http_requests_total", route="/users/{id}/notifications", method="GET", status="200") == 2
    assert grown("http_requests_total", route="/users/{id}/connections", method="GET", status="401") == 1
    assert grown("http_requests_total", route="unmatched", method="GET", status="404") == 1
    assert grown("http_request_seconds_count", route="/broadcast") == 1
    wait_for(lambda: figure(shared_server, "event_loop_lag_seconds_count") > 0, what="the first measurement")
    assert figure(shared_server, "process_open_fds") > 3


def test_no_user_and_no_address_is_in_a_label(shared_server: RunningServer, opens: Opens) -> None:
    opens(shared_server).sign_in({"token": mint("a-very-special-user")})
    shared_server.get("/users/a-very-special-user/notifications", headers=shared_server.api_headers)
    text = shared_server.get("/metrics", headers=shared_server.api_headers).text
    assert "a-very-special-user" not in text
    assert "127.0.0.1" not in text


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_promtool_accepts_what_a_real_server_says(
    shared_server: RunningServer, tool: Callable[[str], str], accept: str
) -> None:
    headers = {**shared_server.api_headers, "Accept": accept}
    answer = shared_server.get("/metrics", headers=headers)
    assert ("openmetrics" in answer.headers["Content-Type"]) == bool(accept)
    if not accept:
        done = subprocess.run(
            [tool("promtool"), "check", "metrics"], input=answer.content, capture_output=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_any_worker_tells_the_figures_of_all_and_none_goes_back_when_one_is_killed(
    tmp_path: Path, opens: Opens, tool: Callable[[str], str]
) -> None:
    with several_workers(tmp_path, tool) as server:
        wait_for(lambda: figure(server, "workers") == COUNT, what="the figures of all workers")
        for number in range(12):
            opens(server).sign_in({"token": mint(f"user-{number}")})
        wait_for(lambda: figure(server, "connects_total") == 12, what="the connections of all workers")
        assert {figure(server, "connects_total") for _ in range(10)} == {12}
        os.kill(workers(server)[0], signal.SIGKILL)
        seen = 12.0

        def restarted() -> bool:
            nonlocal seen
            server.session.close()  # the kept connection may be to the killed worker
            try:
                figures = scrape(server)
            except requests.ConnectionError:
                return False  # the killed worker had accepted this one
            assert figures["connects_total", ()] >= seen
            seen = figures["connects_total", ()]
            return figures["workers", ()] == COUNT and figures["connections", (("transport", "websocket"),)] < 12

        wait_for(restarted, 15, "another worker")
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for_log(" ready ", 2 * COUNT + 1)
        server.session.close()
        wait_for(lambda: figure(server, "workers") == COUNT, 15, "the workers of the reload")
        assert figure(server, "connects_total") >= 12
