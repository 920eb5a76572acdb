"""GET and DELETE /users/<id>/notifications: list what is kept for a user, and delete it."""

import orjson
from flask import Blueprint, Response, request

from socket_server.api import user_paths
from socket_server.api.authorization import Authorization
from socket_server.api.errors import json_response
from socket_server.errors import RequestError
from socket_server.inbox.inbox import MICROSECONDS, Inbox
from socket_server.notifications.positions import parse_offset

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_BYTES = 4_194_304  # of the notifications in one answer; the caller gets the rest with the next `after`


def blueprint(inbox: Inbox, authorization: Authorization) -> Blueprint:
    """Return the routes."""
    bp = user_paths.blueprint("notifications", authorization)

    @bp.get("/users/<any_text:user_id>/notifications")
    def kept(user_id: str) -> Response:
        """List the notifications after the offset `after`, oldest first.

        `total` counts all of them; the last `id` is the `after` of the next page. `complete` is false if retention has
        dropped some after `after`. 400: bad parameter, 503: the inbox is unavailable.
        """
        after = _offset("after")
        page = inbox.since(user_id, after, None, _limit(), MAX_BYTES)
        complete = {"complete": page.complete} if after else {}
        return json_response(
            {
                "notifications": [
                    {
                        "id": str(each.offset),
                        "at": each.offset / MICROSECONDS,
                        "notification": orjson.Fragment(each.notification),
                    }
                    for each in page.notifications
                ],
                "total": page.total,
                **complete,
            }
        )

    @bp.delete("/users/<any_text:user_id>/notifications")
    def forget(user_id: str) -> Response:
        """Delete all notifications of a user. 503: the inbox is unavailable."""
        return json_response({"success": True, "deleted": inbox.forget(user_id)})

    return bp


def _offset(name: str) -> int:
    given = request.args.get(name, "0")
    offset = parse_offset(given)
    if offset is None:
        raise RequestError(400, f"{name} must be an offset", "send the id of a notification, or leave it out for all")
    return offset


def _limit() -> int:
    given = request.args.get("limit", str(DEFAULT_LIMIT))
    limit = parse_offset(given)
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        raise RequestError(400, f"limit must be a whole number from 1 to {MAX_LIMIT}", f"it is {given[:40]!r}")
    return limit
