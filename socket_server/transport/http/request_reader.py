"""HTTP/1.1 requests (RFC 9112): bytes in, WSGI environments out. No sockets, no clock.

llhttp, Node's own parser, does the parsing (httptools). It refuses what requests are smuggled with: both lengths, bare
line feeds, spaces before a colon, folded headers. This module adds the limits.
"""

import io
from collections.abc import Callable
from typing import Any

import httptools

from socket_server.transport.http import content_encoding
from socket_server.transport.http.errors import HttpError, RefusedError
from socket_server.transport.http.request_head import add_headers, build_environ

MAX_HEAD_BYTES = 32_768  # request line and headers; cookies and a bearer token need 4 to 16 KB
MAX_HEADERS = 100
# Everything of a request but its body (head, chunk sizes and extensions, trailers), and the bytes of the next request
# that one read may bring.
MAX_OVERHEAD_BYTES = MAX_HEAD_BYTES + 65_536

# Above this number of chunks their mean size must be at least MIN_MEAN_CHUNK_BYTES.
MAX_SMALL_CHUNKS = 4_096
MIN_MEAN_CHUNK_BYTES = 16

# Judges a request by its head, before its body is read. Returns the number of bytes that the body may have, and None or
# the encoded response that refuses the request.
Judge = Callable[[dict[str, Any]], tuple[int, "bytes | None"]]


class RequestReader:
    """Turns the bytes of one connection into WSGI environments, wherever the stream is cut."""

    __slots__ = (
        "_base",
        "_body",
        "_body_left",
        "_body_limit",
        "_chunk_open",
        "_chunks",
        "_encoded",
        "_environ",
        "_head_size",
        "_headers",
        "_judge",
        "_overhead",
        "_parser",
        "_ready",
        "_url",
        "continue_wanted",
    )

    def __init__(self, base: dict[str, Any], judge: Judge) -> None:
        """base: what every environment of the connection has (the server's side, the client's address)."""
        self._base = base
        self._judge = judge
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[dict[str, Any]] = []
        self._environ: dict[str, Any] | None = None  # of the request whose body is being read
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._overhead = 0  # bytes of the current request that are not its body
        self._body: list[bytes] = []
        self._body_limit = 0
        self._body_left = 0  # bytes until the limit
        self._chunks = 0
        self._chunk_open = False  # the last chunk size has been read and nothing of its data
        self._encoded = False  # the body is gzip
        self.continue_wanted = False  # the client waits for "100 Continue" before it sends the body

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the requests that these bytes complete, in order.

        An upgrade to WebSocket is the last of them; the bytes behind it are in its `socket_server.rest`.
        Raises HttpError or RefusedError, after which the connection must be closed.
        """
        self._overhead += len(data)
        rest: bytes | None = data
        while rest is not None:
            rest = self._parse(rest)
        if self._overhead > MAX_OVERHEAD_BYTES:
            if self._environ is not None and not self._chunk_open:
                raise HttpError("413 Content Too Large", "the chunks of the body have too much around them")
            raise HttpError("431 Request Header Fields Too Large", "the request has too much around its body")
        ready, self._ready = self._ready, []
        return ready

    def _parse(self, data: bytes) -> bytes | None:
        """Parse; return what must be parsed again, or None."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            environ, rest = self._ready[-1], data[upgrade.args[0] :]
            if environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_UPGRADE", "").lower() == "websocket":
                environ["socket_server.rest"] = rest
                return None
            # Another upgrade (some clients always offer h2c) is ignored, RFC 9110 section 7.8. But the parser has stopped
            # behind the head: the request is parsed again without the offer.
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
        """Whether the judge has found an API key in the current request (`socket_server.trusted`)."""
        return self._environ is not None and bool(self._environ.get("socket_server.trusted"))

    @property
    def in_body(self) -> bool:
        """Whether the current request's head is complete and its body is not."""
        return self._environ is not None

    @property
    def partial(self) -> bool:
        """Whether a part of a request has been read."""
        return self._overhead > 0

    def environ_so_far(self) -> dict[str, Any]:
        """Return what is known of the current request: enough for the CORS headers of an error response."""
        if self._environ is not None:
            return self._environ
        environ: dict[str, Any] = {}
        wanted = (b"origin", b"host")
        try:
            add_headers(environ, [header for header in self._headers if header[0].lower() in wanted])
        except HttpError:
            return {}
        return environ

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self._environ = b"", [], [], None
        self._head_size = self._chunks = 0
        self._chunk_open = False
        self._overhead = max(1, self._overhead)  # the request may begin right behind another

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._check_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._environ is not None:
            return  # a trailer (RFC 9112 section 7.1.2), which is not used
        self._headers.append((name, value.strip(b" \t")))
        self._check_head(len(name) + len(value))
        if len(self._headers) > MAX_HEADERS:
            raise HttpError("431 Request Header Fields Too Large", f"more than {MAX_HEADERS} headers")

    def _check_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES:
            raise HttpError("431 Request Header Fields Too Large", f"the request's head is over {MAX_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        parser = self._parser
        environ = build_environ(self._base, parser.get_method(), self._url, parser.get_http_version(), self._headers)
        self._environ = environ
        self._body_limit, response = self._judge(environ)
        if response is not None:
            raise RefusedError(response)
        length = int(environ.get("CONTENT_LENGTH", 0))
        if length > self._body_limit:
            raise HttpError("413 Content Too Large", f"the body is over {self._body_limit} bytes")
        self._body_left = self._body_limit
        self._encoded = (length > 0 or "HTTP_TRANSFER_ENCODING" in environ) and content_encoding.is_encoded(
            environ.get("HTTP_CONTENT_ENCODING", "")
        )
        expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        self.continue_wanted = expects and environ["SERVER_PROTOCOL"] == "HTTP/1.1"  # RFC 9110 section 10.1.1

    def on_chunk_header(self) -> None:
        self._chunks += 1
        self._chunk_open = True
        if self._chunks > MAX_SMALL_CHUNKS:
            size = self._body_limit - self._body_left
            if size < self._chunks * MIN_MEAN_CHUNK_BYTES:
                raise HttpError("413 Content Too Large", "the body has too many small chunks")

    def on_body(self, body: bytes) -> None:
        self.continue_wanted = self._chunk_open = False
        self._overhead -= len(body)
        self._body_left -= len(body)
        if self._body_left < 0:
            raise HttpError("413 Content Too Large", f"the body is over {self._body_limit} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        environ = self._environ
        assert environ is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if body and self._encoded:
            body = content_encoding.decode(body, self._body_limit)
            del environ["HTTP_CONTENT_ENCODING"]
        environ["socket_server.body"] = body
        environ["wsgi.input"] = io.BytesIO(body)
        if self._body:
            environ["CONTENT_LENGTH"] = str(len(body))
        environ["socket_server.keep_alive"] = self._parser.should_keep_alive()
        self._ready.append(environ)
        self._environ = None
        self._overhead = 0
        self.continue_wanted = False
