"""The commands and their options."""

import argparse
import importlib
import io
import math
import os
import sys
from collections.abc import Callable, Sequence

from socket_server import __version__, config
from socket_server.cli.errors import CommandError
from socket_server.errors import ConfigError

DAY_S = 86_400


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 failed, 2 wrong options or settings, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters that the terminal cannot show are escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except (CommandError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of this output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the end
        return 0
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each command sets `command`, a function of the options."""
    root = argparse.ArgumentParser(prog="socket-server", description="A standalone real-time notification server.")
    root.add_argument("--version", action="version", version=f"socket-server {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="run | token | send | listen | inbox | doctor")

    run_ = commands.add_parser("run", help="start the server (gunicorn, with the settings of the environment and .env)")
    run_.set_defaults(command=run)

    token_ = commands.add_parser("token", help="mint a token for a user")
    token_.add_argument("user", help="the user's id")
    token_.add_argument("--ttl", type=int, default=DAY_S, metavar="SECONDS", help="lifetime (default: one day)")
    token_.set_defaults(command=_command("token"))

    send_ = commands.add_parser("send", help="send a notification to users")
    send_.add_argument("users", nargs="+", metavar="USER", help="user ids")
    for name in ("title", "body"):
        send_.add_argument(f"--{name}", metavar="TEXT", help=f"the {name}, for every language")
        for code, language in (("he", "Hebrew"), ("en", "English")):
            send_.add_argument(f"--{name}-{code}", metavar="TEXT", help=f"the {name} in {language}")
    send_.add_argument("--priority", choices=("low", "normal", "high"))
    send_.add_argument("--url", help="the page that a click opens")
    send_.add_argument("--icon", metavar="URL")
    send_.add_argument("--action-key", metavar="KEY")
    send_.add_argument("--data", metavar="JSON", help="any JSON for the application")
    send_.add_argument(
        "--ttl", type=_seconds, metavar="SECONDS", help="how long it is kept; 0: only for connections that are open now"
    )
    send_.add_argument(
        "--idempotency-key", metavar="KEY", help="a repeat with the same key and content within 24 hours is sent once"
    )
    _add_key(send_)
    _add_server(send_)
    send_.set_defaults(command=_command("send"))

    listen_ = commands.add_parser("listen", help="sign in as a user and print each notification as a line of JSON")
    listen_.add_argument("user", help="the user's id")
    listen_.add_argument(
        "--token",
        help="the token to sign in with (default: SOCKET_SERVER_TOKEN, else one is minted as by `token`); every user of "
        "this machine can see it in the process list, so prefer --token-file or the environment",
    )
    listen_.add_argument("--token-file", metavar="FILE", help="read the token from a file; -: from standard input")
    listen_.add_argument("--count", type=int, default=0, metavar="N", help="stop after N notifications")
    _add_server(listen_)
    listen_.set_defaults(command=_command("listen"))

    inbox_ = commands.add_parser("inbox", help="print what is kept for a user as lines of JSON, or delete it")
    inbox_.add_argument("user", help="the user's id")
    inbox_.add_argument("--after", default="0", metavar="OFFSET", help="only notifications after this id")
    inbox_.add_argument("--limit", type=int, default=0, metavar="N", help="at most N notifications (default: all)")
    inbox_.add_argument("--delete", action="store_true", help="delete all that is kept for the user")
    _add_key(inbox_)
    _add_server(inbox_)
    inbox_.set_defaults(command=_command("inbox"))

    doctor_ = commands.add_parser("doctor", help="check the settings and this machine, and say what to fix")
    doctor_.set_defaults(command=_command("doctor"))
    return root


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """Return a command whose module is imported when it runs.

    `run` becomes gunicorn's master, which must not import requests and socketio.
    """

    def run_module(options: argparse.Namespace) -> int:
        status: int = importlib.import_module(f"socket_server.cli.{name}").run(options)
        return status

    return run_module


def _seconds(text: str) -> float:
    """Return a finite number of seconds: an int if it is whole, so that JSON has no `.0`."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(seconds) if seconds.is_integer() else seconds


def _add_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--key",
        help="API key (default: SOCKET_SERVER_API_KEY, then the first of API_KEYS); every user of this machine can see it "
        "in the process list, so prefer --key-file or the environment",
    )
    command.add_argument("--key-file", metavar="FILE", help="read the API key from a file; -: from standard input")


def _add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", metavar="URL", help="default: this machine, at HOST, PORT and BASE_PATH")


def run(_: argparse.Namespace) -> int:
    """Serve in this process until it is stopped."""
    from socket_server.serve import Server

    config.load()  # reports bad settings before anything starts
    Server(prog="socket-server").run()
    return 0
