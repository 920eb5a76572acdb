"""`socket-server inbox`: GET or DELETE /users/<id>/notifications."""

import argparse

from socket_server.cli import http
from socket_server.cli.errors import CommandError
from socket_server.cli.output import print_json

_PAGE = 1_000  # notifications: the largest `limit` that the server accepts


def run(options: argparse.Namespace) -> int:
    """Print all notifications that are kept for a user, page by page, or delete them."""
    path = http.user_path(options.user, "notifications")
    if options.delete:
        answer = http.call(options, "DELETE", path)
        print(answer.text)
        return 0 if answer.ok else 1
    after, printed = options.after, 0
    while True:
        limit = min(options.limit - printed, _PAGE) if options.limit else _PAGE
        answer = http.call(options, "GET", path, query={"after": after, "limit": limit})
        if not answer.ok:
            print(answer.text)
            return 1
        try:
            page = answer.json()
            notifications, total = page["notifications"], page["total"]
        except (ValueError, KeyError, TypeError):
            raise CommandError(f"the answer of {answer.url} is not a socket-server's: name one with --server") from None
        for each in notifications:
            print_json(each)
        printed += len(notifications)
        if not notifications or total == len(notifications) or printed == options.limit:
            return 0
        after = notifications[-1]["id"]
