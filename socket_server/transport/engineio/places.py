"""The places of a process, and which session is closed for a new one.

Anyone can open sessions, so unauthenticated ones must not use up the places of clients with credentials. A new session is
not refused because of them: the oldest of them is closed instead, so that a flood closes the sessions of the flood.
"""

from collections.abc import Callable
from itertools import islice
from typing import Protocol

# The share of MAX_CONNECTIONS that unauthenticated sessions have together. Not lower: when all clients reconnect at once
# after a restart, nearly all of them are unauthenticated at the same time.
UNAUTHENTICATED_SHARE = 0.9

# The size of the handshakes (cookies and tokens) of all unauthenticated sessions together.
MAX_HANDSHAKE_BYTES = 16 * 1_048_576


class Session(Protocol):
    @property
    def authenticated(self) -> bool: ...


class Places:
    """Counts sessions. An authenticated session costs nothing here beyond the count."""

    def __init__(self, most: int, evict: Callable[[Session], object]) -> None:
        """most: MAX_CONNECTIONS. evict: closes a session at once; it must call release()."""
        self._most = most
        self._most_unauthenticated = max(1, int(most * UNAUTHENTICATED_SHARE))
        self._evict = evict
        self._taken = 0
        self._unauthenticated: dict[Session, int] = {}  # session -> size of its handshake, oldest first
        self._handshake_bytes = 0

    @property
    def unavailable(self) -> int:
        """The number of places that a new session cannot have: those of authenticated sessions."""
        return self._taken - len(self._unauthenticated)

    def take(self, session: Session, handshake_bytes: int) -> None:
        """Give a place to a new session; close the oldest unauthenticated ones if there are too many."""
        while self._unauthenticated and (
            self._taken >= self._most
            or len(self._unauthenticated) >= self._most_unauthenticated
            or self._handshake_bytes + handshake_bytes > MAX_HANDSHAKE_BYTES
        ):
            self._evict_or_keep(next(iter(self._unauthenticated)))
        self._taken += 1
        self._unauthenticated[session] = handshake_bytes
        self._handshake_bytes += handshake_bytes

    def evict_oldest(self, count: int) -> None:
        """Close this number of the oldest unauthenticated sessions, as far as there are any."""
        for session in list(islice(self._unauthenticated, count)):
            if session in self._unauthenticated:
                self._evict_or_keep(session)

    def _evict_or_keep(self, session: Session) -> None:
        if session.authenticated:
            self.authenticated(session)  # while its event is still being handled
        else:
            self._evict(session)

    def authenticated(self, session: Session) -> None:
        """Note that a session is authenticated: it cannot be closed for another one any more. May be called again."""
        self._handshake_bytes -= self._unauthenticated.pop(session, 0)

    def release(self, session: Session) -> None:
        """Free the place of a session that has ended. Must be called once."""
        self.authenticated(session)
        self._taken -= 1
