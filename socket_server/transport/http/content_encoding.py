"""Content-Encoding of request bodies: gzip is decoded, anything else is refused (RFC 9110 section 8.4). Pure functions."""

import zlib

from socket_server.transport.http.errors import HttpError

_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_ACCEPTED = ("Accept-Encoding", "gzip")


def is_encoded(coding: str) -> bool:
    """Return whether a body with this Content-Encoding ("": none) must be decoded. Raises HttpError 415 for any coding
    but gzip."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return False
    if coding not in ("gzip", "x-gzip"):  # RFC 9110 section 8.4.1.3: the same
        raise HttpError("415 Unsupported Media Type", "the body may be encoded with gzip only", _ACCEPTED)
    return True


def decode(body: bytes, max_bytes: int) -> bytes:
    """Return the content of a gzip stream of one member.

    At most max_bytes + 1 bytes are decoded. Raises HttpError: 413 if there are more than max_bytes, 400 if it is not
    exactly one whole gzip member.
    """
    decoder = zlib.decompressobj(_GZIP_FORMAT)
    try:
        content = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        raise HttpError("400 Bad Request", "the body is not gzip, as its Content-Encoding says") from None
    if len(content) > max_bytes:
        raise HttpError("413 Content Too Large", f"the decoded body is over {max_bytes} bytes")
    if not decoder.eof:
        raise HttpError("400 Bad Request", "the gzip stream of the body ends too early")
    if decoder.unused_data:
        raise HttpError("400 Bad Request", "there is something behind the gzip stream of the body")
    return content
