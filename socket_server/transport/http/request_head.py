"""From the head of a request to a WSGI environment (PEP 3333). Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Any

from socket_server.transport.http import path
from socket_server.transport.http.errors import HttpError

RawHeaders = Iterable[tuple[bytes, bytes]]

# Headers that may be repeated and are joined as lists. Any other repeated header is joined with a comma.
_LISTS = frozenset({"HTTP_COOKIE", "HTTP_X_FORWARDED_FOR", "HTTP_CONNECTION"})
_ONCE = frozenset({"HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_ORIGIN", "CONTENT_TYPE", "CONTENT_LENGTH"})

_MAX_CACHED_NAMES = 500
_MAX_CACHED_NAME_BYTES = 64
_cached_names: dict[bytes, str] = {}  # header name as sent -> its key; clients send the same few dozen


def build_environ(
    base: Mapping[str, Any], method: bytes, target: bytes, version: str, headers: RawHeaders
) -> dict[str, Any]:
    """Return the environment of a request, without its body. base: what every request of the connection has.

    SCRIPT_NAME in `base` is BASE_PATH, and PATH_INFO is what follows it in the path. The environment has
    `socket_server.percent_encoded` if the path has escapes: such a path matches routes by `path.is_literal` only.
    Raises HttpError.
    """
    if version not in ("1.0", "1.1"):
        raise HttpError("505 HTTP Version Not Supported", "the server speaks HTTP/1.1")
    environ: dict[str, Any] = {**base}
    raw_path, _, query = target.partition(b"?")
    if base_path := environ.get("SCRIPT_NAME", ""):
        rest = path.below(raw_path.decode("latin-1"), base_path)
        if rest is None:
            raise HttpError("404 Not Found", f"everything is served below {base_path} (BASE_PATH)")
        raw_path = rest.encode("latin-1")
    decoded = path.decode(raw_path)
    if decoded is None:
        raise HttpError("404 Not Found", "the path is not in normal form (empty or dot segments, bad escapes, a whole URL)")
    if b"%" in raw_path:
        environ["socket_server.percent_encoded"] = True
    environ["REQUEST_METHOD"] = method.decode("latin-1")
    environ["RAW_URI"] = target.decode("latin-1")
    environ["PATH_INFO"] = decoded
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
    add_headers(environ, headers)
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").lower() != "chunked":
        raise HttpError("501 Not Implemented", "the only supported transfer coding is chunked")
    if version == "1.1" and "HTTP_HOST" not in environ:
        raise HttpError("400 Bad Request", "the Host header is missing")  # RFC 9112 section 3.2
    return environ


def add_headers(environ: dict[str, Any], headers: RawHeaders) -> None:
    """Add headers to an environment. Raises HttpError if one that may occur once is repeated."""
    for name, value in headers:
        key = _cached_names.get(name) or _key(name)
        if not key:
            continue
        text = value.decode("latin-1")
        if key in environ and key in _LISTS:
            environ[key] += ("; " if key == "HTTP_COOKIE" else ", ") + text
        elif key in _ONCE and key in environ:
            raise HttpError("400 Bad Request", "a header that may occur once is repeated")
        elif key in environ:
            environ[key] += "," + text
        else:
            environ[key] = text


def _key(name: bytes) -> str:
    # With an underscore, X_Forwarded_For would become the same key as X-Forwarded-For. Such headers are dropped, as nginx
    # drops them.
    if b"_" in name:
        return ""
    upper = name.decode("latin-1").upper().replace("-", "_")
    key = upper if upper in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{upper}"
    if len(_cached_names) < _MAX_CACHED_NAMES and len(name) <= _MAX_CACHED_NAME_BYTES:
        _cached_names[name] = key
    return key
