"""Paths that name a user: any user there can be."""

from flask import Flask
from werkzeug.routing import BaseConverter


class _AnyText(BaseConverter):
    """A user id in a path: any text at all, percent-encoded. With slashes, as many and wherever they are."""

    regex = r"[\s\S]*?"
    part_isolating = False


def prepare(app: Flask) -> None:
    """Let paths have <any_text:user_id>: `//` in one must not become `/`, which is another user."""
    app.url_map.converters["any_text"] = _AnyText
    app.url_map.merge_slashes = False
