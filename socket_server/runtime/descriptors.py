"""The file descriptors of connections: how many are open, and how many are left.

A client can hold several: a polling session has a waiting poll, a second connection for its posts, and a WebSocket while
it upgrades. So descriptors are counted here, for HTTP and WebSocket connections alike, and not derived from sessions. The
last ones are a reserve: while only the reserve is left, new sessions are refused and idle connections are closed, so that
back ends can still connect.
"""

import _socket
import os
import resource
from typing import Any

# Descriptors that are opened after the start by anything but a connection: database, Redis, logs, handovers of
# connections between workers.
_FOR_LIBRARIES = 256

_RESERVE = 512  # for back ends; at most an eighth of all
_UNLIMITED = 1_048_576  # the kernel's own default limit of a process (fs.nr_open)


class DescriptorBudget:
    """Counts the open descriptors of connections against a limit."""

    def __init__(self, limit: int, reserve: int) -> None:
        """limit: descriptors that connections may hold. reserve: the last ones of these."""
        self.limit = limit
        self.reserve = reserve
        self.held = 0

    @classmethod
    def of_this_process(cls) -> "DescriptorBudget":
        """Return a budget of what this process may still open (RLIMIT_NOFILE)."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        allowed = _UNLIMITED if soft == resource.RLIM_INFINITY else soft
        left = max(1, allowed - _open_now() - min(_FOR_LIBRARIES, allowed // 8))
        return cls(left, min(_RESERVE, left // 8))

    @property
    def low(self) -> bool:
        """Whether only the reserve is left."""
        return self.held >= self.limit - self.reserve

    @property
    def exhausted(self) -> bool:
        """Whether the reserve is used up too."""
        return self.held >= self.limit

    def take(self) -> None:
        """Count one descriptor that was opened."""
        self.held += 1

    def give_back(self) -> None:
        """Count one descriptor that was closed."""
        self.held -= 1


class CountedSocket(_socket.socket):
    """A socket without gevent's methods whose descriptor is counted until close(), which is to be called once."""

    __slots__ = ("_budget",)

    def __init__(self, budget: DescriptorBudget, *args: Any) -> None:
        """budget: has counted the descriptor already. args: those of socket.socket."""
        super().__init__(*args)
        self._budget = budget

    def close(self) -> None:
        super().close()
        self._budget.give_back()


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # not Linux
        return 64
