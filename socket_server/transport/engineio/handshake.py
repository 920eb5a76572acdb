"""What is kept of a handshake request: the client's address and its credentials. The request itself is not kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from socket_server.transport.engineio.client_address import TrustedProxies, client_address

_MAX_USER_AGENT_CHARS = 200

# Of one cookie, or of the Authorization header. A token may have 16,384 characters (auth/tokens.py): a longer one is kept
# so far that it is still refused for its length.
MAX_CREDENTIAL_CHARS = 18_000


@dataclass(frozen=True, slots=True)
class Handshake:
    """address: the client's, "" if it is unknown. cookie: a Cookie header with the needed cookies only."""

    address: str
    user_agent: str
    cookie: str = field(repr=False)
    authorization: str = field(repr=False)

    @property
    def size(self) -> int:
        """Number of characters that are kept."""
        return len(self.address) + len(self.user_agent) + len(self.cookie) + len(self.authorization)


class HandshakeReader:
    """Reads handshakes from WSGI environments."""

    def __init__(self, trusted_proxies: TrustedProxies | None = None, cookies: Sequence[str] = ("jwt", "id")) -> None:
        """cookies: the names of those that are kept."""
        self._trusted = trusted_proxies or TrustedProxies()
        self._cookies = [re.compile(rf"(?:^|;)\s*({re.escape(name)}\s*=[^;]*)") for name in cookies]

    def address(self, environ: Mapping[str, Any]) -> str:
        """Return the client's address of a request, "" if it is unknown."""
        return client_address(environ, self._trusted)

    def read(self, environ: Mapping[str, Any]) -> Handshake:
        return Handshake(
            address=self.address(environ),
            user_agent=environ.get("HTTP_USER_AGENT", "")[:_MAX_USER_AGENT_CHARS],
            cookie=self._needed_cookies(environ.get("HTTP_COOKIE", "")),
            authorization=environ.get("HTTP_AUTHORIZATION", "")[:MAX_CREDENTIAL_CHARS],
        )

    def _needed_cookies(self, header: str) -> str:
        """Return a Cookie header with the first cookie of each needed name: browsers send the most specific path first."""
        if not header:
            return ""
        found = [match[1][:MAX_CREDENTIAL_CHARS] for cookie in self._cookies if (match := cookie.search(header))]
        return "; ".join(found)
