"""Messages of one client that are being handled, in order, by a greenlet of the pool."""

from collections import deque
from collections.abc import Callable

from gevent.event import Event

END = None  # in place of a message: the session has ended


class Inbound:
    """A queue that exists only while a message is being handled."""

    __slots__ = ("_handled", "_messages")

    def __init__(self, message: str | bytes | None) -> None:
        self._messages: deque[str | bytes | None] = deque((message,))
        self._handled: Event | None = None  # made by wait_until_handled()

    def append(self, message: str | bytes | None) -> None:
        self._messages.append(message)

    def handle_all(self, handle: Callable[[str | bytes | None], None]) -> None:
        """Handle the messages, also those that arrive while earlier ones are being handled."""
        while self._messages:
            handle(self._messages.popleft())
        if self._handled is not None:
            self._handled.set()

    def wait_until_handled(self) -> None:
        self._handled = self._handled or Event()
        self._handled.wait()
