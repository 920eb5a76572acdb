"""HTTP/1.1 requests and responses (RFC 9112): bytes in, WSGI environments out; no sockets, no clock.

llhttp, Node's own parser, does the parsing (httptools): strict about what requests are smuggled with (both lengths, bare
line feeds, spaces before a colon, folded headers). Here are the limits, and the translation to WSGI.
"""

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

MAX_HEAD_BYTES = 32_768  # request line and headers; cookies and a bearer token need 4 to 16 KB
MAX_HEADERS = 100
# All of a request but its body: head, chunk sizes and extensions, trailers; and what one read brings of the next request.
MAX_OVERHEAD_BYTES = MAX_HEAD_BYTES + 65_536

# Judges a request by its head, before its body is read: (bytes its body may have, None) or (0, the response instead).
Judge = Callable[[dict[str, Any]], tuple[int, "bytes | None"]]


class HttpError(Exception):
    """A request that cannot be served: the connection is closed after this status."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RefusedError(Exception):
    """A request whose head was judged enough: `response` is sent and the connection closed."""

    def __init__(self, response: bytes) -> None:
        super().__init__("refused by its head")
        self.response = response


class RequestReader:
    """Turns the bytes of one connection into WSGI environments, across any cut of the stream.

    base: what every environment holds (the server's side and the client's address).
    """

    __slots__ = (
        "_base",
        "_body",
        "_body_limit",
        "_environ",
        "_head_size",
        "_headers",
        "_judge",
        "_parser",
        "_ready",
        "_size",
        "_url",
        "continue_wanted",
    )

    def __init__(self, base: dict[str, Any], judge: Judge) -> None:
        self._base = base
        self._judge = judge
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[dict[str, Any]] = []
        self._environ: dict[str, Any] | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._body: list[bytes] = []
        self._body_limit = 0
        self._head_size = 0
        self.continue_wanted = False  # the client waits for "100 Continue" before it sends the body

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the requests that these bytes complete, in order.

        A request that asks for an upgrade is the last; what follows it stands in its `socket_server.rest`.
        Raises HttpError or RefusedError, after which the connection must be closed.
        """
        self._size += len(data)
        rest: bytes | None = data
        while rest is not None:
            rest = self._parse(rest)
        if self._size > MAX_OVERHEAD_BYTES:
            raise HttpError("431 Request Header Fields Too Large", "the request has more around its body than any needs")
        ready, self._ready = self._ready, []
        return ready

    def _parse(self, data: bytes) -> bytes | None:
        """Parse; return what is still to be parsed."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            environ, rest = self._ready[-1], data[upgrade.args[0] :]
            if environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_UPGRADE", "").lower() == "websocket":
                environ["socket_server.rest"] = rest
                return None
            # Another upgrade (h2c, which some clients always offer) is not for us and is ignored (RFC 9110 section 7.8),
            # but the parser has stopped behind the head: the request is parsed again without the offer.
            if "HTTP_UPGRADE" not in environ:
                raise HttpError("400 Bad Request", "CONNECT is for proxies") from None
            del self._ready[-1]
            head = self._head_without_upgrade()
            self._parser = httptools.HttpRequestParser(self)
            return head + rest
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError:
            raise HttpError("400 Bad Request", "not an HTTP/1.1 request") from None
        return None

    def _head_without_upgrade(self) -> bytes:
        dropped = (b"upgrade", b"connection", b"http2-settings")
        lines = [self._parser.get_method() + b" " + self._url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self._headers if name.lower() not in dropped]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    @property
    def trusted(self) -> bool:
        """Whether the judge vouched for the request under way (`socket_server.trusted`)."""
        return self._environ is not None and bool(self._environ.get("socket_server.trusted"))

    @property
    def in_body(self) -> bool:
        """Whether a request's head is complete and its body is not."""
        return self._environ is not None

    @property
    def partial(self) -> bool:
        """Whether the stream stands inside a request."""
        return self._size > 0

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self._environ = b"", [], [], None
        self._head_size = 0
        self._size = max(1, self._size)  # a request has begun, perhaps right behind another

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._check_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._environ is not None:
            return  # a trailer (RFC 9112 section 7.1.2), which nothing here wants to know
        self._headers.append((name, value.strip(b" \t")))
        self._check_head(len(name) + len(value))
        if len(self._headers) > MAX_HEADERS:
            raise HttpError("431 Request Header Fields Too Large", f"more than {MAX_HEADERS} headers")

    def _check_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES:
            raise HttpError("431 Request Header Fields Too Large", f"the request's head is over {MAX_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        environ = self._environ = self._build()
        self._body_limit, response = self._judge(environ)
        if response is not None:
            raise RefusedError(response)
        if int(environ.get("CONTENT_LENGTH", 0)) > self._body_limit:
            raise HttpError("413 Content Too Large", f"the body is over {self._body_limit} bytes")
        expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        self.continue_wanted = expects and environ["SERVER_PROTOCOL"] == "HTTP/1.1"  # RFC 9110 section 10.1.1

    def on_body(self, body: bytes) -> None:
        self.continue_wanted = False
        self._size -= len(body)
        self._body_limit -= len(body)
        if self._body_limit < 0:
            raise HttpError("413 Content Too Large", "the body is too large")
        self._body.append(body)

    def on_message_complete(self) -> None:
        environ = self._environ
        assert environ is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        environ["socket_server.body"] = body
        environ["wsgi.input"] = io.BytesIO(body)
        if body:
            environ["CONTENT_LENGTH"] = str(len(body))
        environ["socket_server.keep_alive"] = self._parser.should_keep_alive()
        self._ready.append(environ)
        self._environ = None
        self._size = 0
        self.continue_wanted = False

    def _build(self) -> dict[str, Any]:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise HttpError("505 HTTP Version Not Supported", "HTTP/1.1 is spoken here")
        environ = self._base.copy()
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/":
            path = _path_of_absolute(path)
        environ["REQUEST_METHOD"] = self._parser.get_method().decode("latin-1")
        environ["RAW_URI"] = self._url.decode("latin-1")
        # PEP 3333: bytes as latin-1.
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        for name, value in self._headers:
            key = _KEYS.get(name) or _key(name)
            if not key:
                continue
            text = value.decode("latin-1")
            if key in environ and key in _LISTS:
                environ[key] += ("; " if key == "HTTP_COOKIE" else ", ") + text
            elif key in _ONCE and key in environ:
                raise HttpError("400 Bad Request", "a header that may stand once stands twice")
            elif key in environ:
                environ[key] += "," + text
            else:
                environ[key] = text
        if environ.get("HTTP_TRANSFER_ENCODING", "chunked").lower() != "chunked":
            raise HttpError("501 Not Implemented", "the only transfer coding taken here is chunked")
        if version == "1.1" and "HTTP_HOST" not in environ:
            raise HttpError("400 Bad Request", "the Host header is missing")  # RFC 9112 section 3.2
        return environ


_LISTS = frozenset({"HTTP_COOKIE", "HTTP_X_FORWARDED_FOR", "HTTP_CONNECTION"})
_ONCE = frozenset({"HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_ORIGIN", "CONTENT_TYPE", "CONTENT_LENGTH"})
_MAX_KEYS = 500
_MAX_KEY_BYTES = 64
_KEYS: dict[bytes, str] = {}  # header name as sent -> environment key; the same few dozen again and again


def _key(name: bytes) -> str:
    # An underscore would make X_Forwarded_For look like X-Forwarded-For: such headers are dropped, as nginx drops them.
    if b"_" in name:
        return ""
    upper = name.decode("latin-1").upper().replace("-", "_")
    key = upper if upper in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{upper}"
    if len(_KEYS) < _MAX_KEYS and len(name) <= _MAX_KEY_BYTES:
        _KEYS[name] = key
    return key


def _path_of_absolute(url: bytes) -> bytes:
    """Return the path of an absolute-form target (RFC 9112 section 3.2.2); "*" and the like are no path of ours."""
    _, separator, rest = url.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if separator else b"/" + url.lstrip(b"*")


def encode_response(status: str, headers: list[tuple[str, str]], body: bytes, date: str, close: bool) -> bytes:
    """Return a whole response; its length and date are added, and `Connection: close` where it is the last.

    Raises ValueError for a header that would break out of its line.
    """
    lines = [f"HTTP/1.1 {status}"]
    given = set()
    for name, value in headers:
        lines.append(f"{name}: {value}")
        given.add(name.lower())
    if "content-length" not in given and status[:3] not in ("204", "304") and status[0] != "1":
        lines.append(f"Content-Length: {len(body)}")
    if "date" not in given:
        lines.append(f"Date: {date}")
    if close:
        lines.append("Connection: close")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise ValueError("a line break in a header")
    return f"{head}\r\n\r\n".encode("latin-1") + body
