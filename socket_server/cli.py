"""The command line: socket-server run | token | send | listen | inbox | doctor."""

import argparse
import json
import os
import queue
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from socket_server import __version__, config
from socket_server.config import Settings
from socket_server.errors import ConfigError

if TYPE_CHECKING:
    import requests

DAY_S = 86_400
_PAGE = 1_000  # as many as GET /users/<id>/notifications gives at once


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 it did not work, 2 called or configured wrongly."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except (CommandError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return status


class CommandError(Exception):
    """A command could not do its work; the text says why and what to do."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="socket-server", description="A standalone real-time notification server.")
    parser.add_argument("--version", action="version", version=f"socket-server {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="run | token | send | listen | inbox | doctor"
    )

    run_ = commands.add_parser("run", help="start the server (gunicorn, with the settings of the environment and .env)")
    run_.set_defaults(command=run)

    token_ = commands.add_parser("token", help="mint a token for a user")
    token_.add_argument("user", help="the user's id")
    token_.add_argument("--ttl", type=int, default=DAY_S, metavar="SECONDS", help="lifetime (default: a day)")
    token_.set_defaults(command=token)

    send_ = commands.add_parser("send", help="send a notification to users")
    send_.add_argument("users", nargs="+", metavar="USER", help="user ids")
    for name in ("title", "body"):
        send_.add_argument(f"--{name}", metavar="TEXT", help=f"the {name}, whatever the language")
        for code, language in (("he", "Hebrew"), ("en", "English")):
            send_.add_argument(f"--{name}-{code}", metavar="TEXT", help=f"the {name} in {language}")
    send_.add_argument("--priority", choices=("low", "normal", "high"))
    send_.add_argument("--url", help="where a click leads")
    send_.add_argument("--icon", metavar="URL")
    send_.add_argument("--action-key", metavar="KEY")
    send_.add_argument("--data", metavar="JSON", help="anything for the application")
    send_.add_argument("--key", help="API key (default: the first of API_KEYS)")
    _add_server(send_)
    send_.set_defaults(command=send)

    listen_ = commands.add_parser("listen", help="sign in as a user and print what arrives, one JSON a line")
    listen_.add_argument("user", help="the user's id")
    listen_.add_argument("--token", help="the token to sign in with (default: minted, as `token` does)")
    listen_.add_argument("--count", type=int, default=0, metavar="N", help="stop after N notifications")
    _add_server(listen_)
    listen_.set_defaults(command=listen)

    inbox_ = commands.add_parser("inbox", help="print what is kept for a user, one JSON a line, or forget it")
    inbox_.add_argument("user", help="the user's id")
    inbox_.add_argument("--after", default="0", metavar="OFFSET", help="only what came after this id")
    inbox_.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many (default: all)")
    inbox_.add_argument("--delete", action="store_true", help="forget all that is kept for the user")
    inbox_.add_argument("--key", help="API key (default: the first of API_KEYS)")
    _add_server(inbox_)
    inbox_.set_defaults(command=inbox)

    doctor_ = commands.add_parser("doctor", help="check the settings and this machine, and say what to mend")
    doctor_.set_defaults(command=doctor)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", help="default: this machine, at HOST and PORT of the settings")


def _client_settings() -> Settings:
    # A client command needs no complete production configuration: what is missing it asks for itself.
    return config.load(app_env="development")


def run(_: argparse.Namespace) -> int:
    """Start the server in this process."""
    from socket_server.serve import Server

    Server(prog="socket-server").run()
    return 0


def token(options: argparse.Namespace) -> int:
    """Print a token."""
    print(_token(_client_settings(), options.user, options.ttl))
    return 0


def _token(settings: Settings, user_id: str, ttl_s: int, server: str | None = None) -> str:
    """Return a token signed with JWT_SECRET; without one, minted by the development server on this machine."""
    import requests

    from socket_server.auth import tokens

    if settings.jwt_secrets:
        return tokens.mint(user_id, settings.jwt_secrets[0], settings, ttl_s, time.time())
    if settings.jwt_public_key or settings.jwt_jwks_url:
        raise CommandError("only a public key is configured: tokens come from whoever holds the private one")
    url = f"{(server or settings.local_url).rstrip('/')}/demo/token"
    try:
        answer = requests.post(url, json={"userId": user_id}, timeout=5)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise CommandError(
            "JWT_SECRET is not set, and no development server mints tokens "
            f"at {url} ({_reason(error)}): set JWT_SECRET, or start one with `make run`"
        ) from None
    return str(answer.json()["token"])


def send(options: argparse.Namespace) -> int:
    """POST /broadcast and print the answer."""
    answer = _call(options, "POST", "/broadcast", json={"userIds": options.users, "notification": notification(options)})
    print(answer.text)
    return 0 if answer.ok else 1


def _call(options: argparse.Namespace, method: str, path: str, **parameters: Any) -> "requests.Response":
    """Call the REST API as a back end does. Raises CommandError where no server answers."""
    import requests

    settings = _client_settings()
    key = options.key or next(iter(settings.api_keys), "")
    url = (options.server or settings.local_url).rstrip("/") + path
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return requests.request(method, url, headers=headers, timeout=30, **parameters)
    except requests.RequestException as error:
        raise CommandError(f"no server answers at {url} ({_reason(error)}): start it, or name it with --server") from None


def inbox(options: argparse.Namespace) -> int:
    """GET or DELETE /users/<id>/notifications: print what is kept, page by page, or forget it."""
    path = f"/users/{quote(options.user, safe='')}/notifications"
    if options.delete:
        answer = _call(options, "DELETE", path)
        print(answer.text)
        return 0 if answer.ok else 1
    after, printed = options.after, 0
    while True:
        limit = min(options.limit - printed, _PAGE) if options.limit else _PAGE
        answer = _call(options, "GET", path, params={"after": after, "limit": limit})
        if not answer.ok:
            print(answer.text)
            return 1
        kept = answer.json()["notifications"]
        for each in kept:
            print(json.dumps(each, ensure_ascii=False))
        printed += len(kept)
        if answer.json()["total"] == len(kept) or printed == options.limit:
            return 0
        after = kept[-1]["id"]


def notification(options: argparse.Namespace) -> dict[str, Any]:
    """Return the notification that the options of `send` describe. Raises CommandError."""
    built: dict[str, Any] = {}
    for name in ("title", "body"):
        languages = {code: text for code in ("he", "en") if (text := getattr(options, f"{name}_{code}")) is not None}
        plain = getattr(options, name)
        if plain is not None and languages:
            raise CommandError(f"--{name} beside --{name}-he or --{name}-en: give one text, or one for each language")
        if plain is not None or languages:
            built[name] = languages or plain
    metadata = {name: value for name in ("url", "icon", "priority") if (value := getattr(options, name)) is not None}
    if metadata:
        built["metadata"] = metadata
    if options.action_key is not None:
        built["actionKey"] = options.action_key
    if options.data is not None:
        try:
            built["data"] = json.loads(options.data)
        except ValueError as error:
            raise CommandError(f"--data is not JSON: {error}") from None
    return built


def listen(options: argparse.Namespace) -> int:
    """Connect as a user and print what arrives until Ctrl-C, --count, or a refusal."""
    import socketio

    settings = _client_settings()
    url = options.server or settings.local_url
    signed = options.token or _token(settings, options.user, DAY_S, options.server)
    # Without this websocket-client sends an Origin, as if it were a web page of the server's own.
    client = socketio.Client(handle_sigint=False, websocket_extra_options={"suppress_origin": True})
    # The statuses to end with; unlike an Event's, its lock cannot be the very one that a signal has interrupted.
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    left = options.count

    def admitted(data: dict[str, Any]) -> None:
        print(f"listening as user {data['userId']} at {url}", file=sys.stderr, flush=True)

    def refused(data: dict[str, Any]) -> None:
        print(f"refused: {data['message']} ({data['code']})", file=sys.stderr, flush=True)
        ended.put(1)

    def arrived(received: Any, offset: str | None = None) -> None:
        nonlocal left
        print(json.dumps({"id": offset, "notification": received}, ensure_ascii=False), flush=True)
        left -= 1
        if left == 0:
            ended.put(0)

    client.on("auth_success", admitted)
    client.on("auth_error", refused)
    client.on("notification", arrived)
    # No KeyboardInterrupt: that could strike the client's own threads' locks at any point.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.put(130))
    try:
        client.connect(url, auth={"token": signed, "userId": options.user}, transports=["websocket"], wait=False)
    except socketio.exceptions.ConnectionError as error:
        raise CommandError(f"no server answers at {url} ({error}): start it, or name it with --server") from None
    status = _wait_for(ended)
    client.disconnect()
    return status


def _wait_for(ended: "queue.SimpleQueue[int]") -> int:
    while True:
        try:
            # Not for ever at once: a signal that comes in the very moment in which the waiting begins does not end it.
            return ended.get(timeout=0.2)
        except queue.Empty:
            pass


def doctor(_: argparse.Namespace) -> int:
    """Check what a start needs and print a line for each; the status is 1 where something has to be mended."""
    from socket_server import doctor

    problems = 0
    for finding in doctor.examine(config.load):
        print(f"{'ok  ' if finding.good else 'MEND'}  {finding.text}")
        problems += not finding.good
    print("all is well" if not problems else f"{problems} to mend", file=sys.stderr)
    return 1 if problems else 0


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return f"status {response.status_code}" if response is not None else type(error).__name__


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
