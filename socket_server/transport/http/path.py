"""The path of a request target, in its one normal form.

Proxies, and rules in them, read `//stats`, `/%2e/stats`, `/x/../stats` or `/x%2F..%2Fstats` in different ways. So a path
is accepted only as it would be written without any of these: absolute, no empty segment but a last one, no `.` or `..`
segment, and characters as RFC 3986 section 3.3 allows them. Pure functions.
"""

import re
from urllib.parse import unquote_to_bytes

# Segments of pchar (RFC 3986), none of them `.` or `..`.
_NORMAL = re.compile(rb"/|(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)+/?")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def decode(raw: bytes) -> str | None:
    """Return the percent-decoded path as PEP 3333 wants it, bytes as Latin-1; None if it is not in normal form.

    A segment may contain escapes of any character, such as %2F or %2E%2E: in a user's id they are part of the id. That no
    escape stands for a part of a route is for the routes to check (`is_literal`).
    """
    if _NORMAL.fullmatch(raw) is None:
        return None
    if b"%" not in raw:
        return raw.decode("ascii")
    if _BAD_ESCAPE.search(raw):
        return None
    decoded = unquote_to_bytes(raw)
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return None
    return decoded.decode("latin-1")


def below(path: str, base_path: str) -> str | None:
    """Return what follows a base path such as `/push` in a path; None if the path is not below it.

    base_path: "" or without a slash at its end. What follows `/push` and `/push/` is `/`.
    """
    if path == base_path:
        return "/"
    return path[len(base_path) :] if path.startswith(f"{base_path}/") else None


def is_literal(raw: str, rule: str) -> bool:
    """Return whether a path has the segments of a route, and the fixed ones unescaped.

    raw: the path as sent. rule: the route. A segment like `<any_text:user_id>` stands for one segment of the path, so that
    an escaped slash is never taken for a separator; `<path:…>` at the end stands for any number of them.
    """
    segments, expected = raw.split("/"), rule.split("/")
    if expected[-1].startswith("<path:"):
        expected = expected[:-1] + segments[len(expected) - 1 :]
    return len(segments) == len(expected) and all(
        fixed.startswith("<") or segment == fixed for segment, fixed in zip(segments, expected, strict=True)
    )
