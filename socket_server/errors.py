"""The errors that this server raises.

SocketServerError
    ConfigError            a setting is missing or bad: the server does not start
    RequestError           a REST request is refused: a status, an error and the remedy
    AuthenticationError    a connection is refused: a message and a code
    Unavailable            a part outside this process does not work now: why, and the remedy
        InboxUnavailable   the inbox
        ClusterUnavailable the Redis that joins the nodes
        KeysUnavailable    the keys of the identity provider
"""

from collections.abc import Sequence


class SocketServerError(Exception):
    """The base of all errors that this server raises on purpose."""


class ConfigError(SocketServerError):
    """The settings do not allow a start. problems: all of them, each with its remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"socket-server cannot start; fix these settings (environment or .env):\n{lines}")


class RequestError(SocketServerError):
    """A REST request is refused.

    status: the HTTP status. error, message: the members of the body; the message ends with the remedy.
    retry_after_s: whole seconds after which a repeat may succeed; None if it cannot succeed unchanged.
    """

    def __init__(self, status: int, error: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(f"{status} {error}: {message}")
        self.retry_after_s = retry_after_s
        self.status = status
        self.error = error
        self.message = message


class AuthenticationError(SocketServerError):
    """A connection is refused. docs/protocol.md lists every pair of `message` and `code`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Unavailable(SocketServerError):  # noqa: N818 - a state of the part, and its name in the documentation
    """A part outside this process does not work now. The message says why, and the remedy."""


class InboxUnavailable(Unavailable):
    """The store did not confirm an operation.

    Whether the operation took effect is unknown. A repeat with the same idempotency key is safe.
    """


class ClusterUnavailable(Unavailable):
    """The other nodes cannot be reached now, so nothing is known about all of them."""


class KeysUnavailable(Unavailable):
    """The keys of the identity provider cannot be fetched now: a token is neither valid nor invalid."""
