"""A path matches a route only as the route is written: nothing but its variable segments may be percent-encoded.

Flask matches the decoded path. Without this check, `/stat%73` or `/users/7%2Fnotifications` would reach a route past a
proxy's rule for its path.
"""

from flask import Flask, abort, request

from socket_server.transport.http import path


def register(app: Flask) -> None:
    """Answer 404 to any other path that Flask has matched."""

    @app.before_request
    def check() -> None:
        if request.url_rule is None:
            return
        raw = request.environ["RAW_URI"].partition("?")[0]
        rest = path.below(raw, request.environ.get("SCRIPT_NAME", ""))
        if rest is None or not path.is_literal(rest, request.url_rule.rule):
            abort(404)
