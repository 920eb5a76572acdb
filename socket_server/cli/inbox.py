"""`socket-server inbox`: GET or DELETE /users/<id>/notifications."""

import argparse

from socket_server.cli import http
from socket_server.cli.output import print_json

_PAGE = 1_000  # the most that the server returns at once


def run(options: argparse.Namespace) -> int:
    """Print what is kept for a user, page by page, or delete it."""
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
        page = answer.json()
        for each in page["notifications"]:
            print_json(each)
        printed += len(page["notifications"])
        if page["total"] == len(page["notifications"]) or printed == options.limit:
            return 0
        after = page["notifications"][-1]["id"]
