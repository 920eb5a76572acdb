"""`socket-server listen`: sign in as a user and print each notification."""

import argparse
import queue
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

import socketio

from socket_server.cli import http, secrets, token
from socket_server.cli.errors import CommandError
from socket_server.cli.output import print_json
from socket_server.cli.settings import client_settings

DAY_S = 86_400


def run(options: argparse.Namespace) -> int:
    """Print each notification as a line of JSON, until Ctrl-C, --count or a refusal."""
    settings = client_settings()
    url = (options.server or settings.local_url).rstrip("/")
    signed = secrets.token(options) or token.mint(settings, options.user, DAY_S, options.server)
    # By default websocket-client sends an Origin header, as a web page does, and uses any proxy of the environment.
    # It reads http_no_proxy only if a proxy is named.
    direct = {} if http.may_use_proxy(url) else {"http_proxy_host": "unused", "http_no_proxy": ["*"]}
    client = socketio.Client(handle_sigint=False, websocket_extra_options={"suppress_origin": True, **direct})
    # Exit statuses. A signal handler must not wait for a lock that the interrupted code holds: a SimpleQueue has none.
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    left = options.count

    def admitted(data: dict[str, Any]) -> None:
        print(f"listening as user {data['userId']} at {url}", file=sys.stderr, flush=True)

    def refused(data: dict[str, Any]) -> None:
        print(f"refused: {data['message']} ({data['code']})", file=sys.stderr, flush=True)
        ended.put(1)

    def arrived(received: Any, offset: str | None = None) -> None:
        nonlocal left
        try:
            print_json({"id": offset, "notification": received})
        except BrokenPipeError:
            ended.put(0)
        left -= 1
        if left == 0:
            ended.put(0)

    client.on("auth_success", admitted)
    client.on("auth_error", refused)
    client.on("notification", arrived)
    # A KeyboardInterrupt could interrupt the client library anywhere.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.put(130))
    try:
        client.connect(
            url,
            auth={"token": signed, "userId": options.user},
            transports=["websocket"],
            socketio_path=f"{urlsplit(url).path}/socket.io",
            wait=False,
        )
    except (socketio.exceptions.ConnectionError, ValueError) as error:
        raise CommandError(f"no server answers at {url} ({error}): start it, or name it with --server") from None
    status = _wait_for(ended)
    client.disconnect()
    return status


def _wait_for(ended: "queue.SimpleQueue[int]") -> int:
    while True:
        try:
            # With a timeout, because a signal that arrives just as the wait begins does not end it.
            return ended.get(timeout=0.2)
        except queue.Empty:
            pass
