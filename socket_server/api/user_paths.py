"""Paths that name a user, `/users/<id>/…`: any id, percent-encoded, and only with an API key."""

from flask import Blueprint, Flask, request
from werkzeug.routing import BaseConverter

from socket_server.api.authorization import Authorization
from socket_server.auth.user_ids import MAX_USER_ID_BYTES, is_too_long
from socket_server.errors import RequestError


class _AnyText(BaseConverter):
    """A user id in a path: any text, also with slashes."""

    regex = r"[\s\S]*?"
    part_isolating = False


def prepare(app: Flask) -> None:
    """Let routes contain <any_text:user_id>. Two slashes must not become one: that is another user's id."""
    app.url_map.converters["any_text"] = _AnyText
    app.url_map.merge_slashes = False


def blueprint(name: str, authorization: Authorization) -> Blueprint:
    """Return a blueprint for routes with <any_text:user_id>. prepare() the app before registering it.

    Each request needs an API key (401), and an id of at most MAX_USER_ID_BYTES (400).
    """
    bp = Blueprint(name, __name__)

    @bp.before_request
    def check() -> None:
        authorization.require(request.environ)
        if is_too_long((request.view_args or {})["user_id"]):
            raise RequestError(
                400, f"the user id in the path must be at most {MAX_USER_ID_BYTES} bytes", "no longer id has notifications"
            )

    return bp
