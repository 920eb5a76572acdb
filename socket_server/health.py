"""Whether the parts that lie outside this process can do their work now."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from socket_server import log
from socket_server.errors import Unavailable

_log = log.logger("Server")

# However often somebody asks, the parts are asked no more often than this.
KEPT_S = 1.0

OK = "ok"


@dataclass(frozen=True, slots=True)
class Checks:
    """texts: for each part "ok", or what is wrong and what to do about it."""

    good: bool
    texts: dict[str, str]


class Health:
    """Asks the parts, and remembers the answers for a second. A check raises Unavailable where something is wrong."""

    def __init__(self, parts: Mapping[str, Callable[[], None]]) -> None:
        self._parts = parts
        self._asking = threading.Lock()
        self._checks = Checks(True, {})
        self._asked = -KEPT_S

    def checks(self) -> Checks:
        """Return how the parts are."""
        with self._asking:
            if time.monotonic() >= self._asked + KEPT_S:
                before, self._checks = self._checks, self._ask()
                self._asked = time.monotonic()
                if before.good != self._checks.good:
                    _log.warning("health: %s", self._checks.texts)
        return self._checks

    def _ask(self) -> Checks:
        texts = {}
        for name, check in self._parts.items():
            try:
                check()
                texts[name] = OK
            except Unavailable as error:
                texts[name] = str(error)
        return Checks(all(text == OK for text in texts.values()), texts)
