"""HTTP/1.1 responses: values in, bytes out (RFC 9112)."""

import time
from email.utils import formatdate

Headers = list[tuple[str, str]]
Response = tuple[str, Headers, bytes]  # status line, headers, body


def encode_response(status: str, headers: Headers, body: bytes, date: str, close: bool) -> bytes:
    """Return a whole response. Its length and date are added, and `Connection: close` if close is true.

    Raises ValueError if a header contains a line break.
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


class DateHeader:
    """The content of the Date header, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text
