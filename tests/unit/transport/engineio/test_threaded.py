"""The Engine.IO server of `flask run`."""

import json
from typing import Any

import pytest

from socket_server.transport.engineio.gate import Gate
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.engineio.threaded import ThreadedEngineIOServer

LIMITS = Limits(max_message_bytes=1000, send_backlog_bytes=1000, auth_timeout_s=1, events_per_second=20)


@pytest.mark.parametrize(("interval_s", "announced_ms"), [(0.3, 300), (1.5, 1500), (25, 25_000)])
def test_the_ping_interval_is_announced_in_milliseconds(interval_s: float, announced_ms: int) -> None:
    server = ThreadedEngineIOServer(Gate(Origins(), 10), interval_s, 0.5, LIMITS)
    server.on("connect", lambda *_: None)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "EIO=4&transport=polling",
        "PATH_INFO": "/socket.io/",
    }
    [body] = server.handle_request(environ, lambda *_: None)
    handshake = json.loads(body.decode()[1:])
    assert (handshake["pingInterval"], handshake["pingTimeout"]) == (announced_ms, 500)
