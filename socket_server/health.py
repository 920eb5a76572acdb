"""Health checks of the parts outside this process: the inbox, Redis, the identity provider."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from socket_server import log
from socket_server.errors import Unavailable

_log = log.logger("Server")

KEPT_S = 1.0  # for which a result is returned again, so that calls of /health cannot load the parts

OK = "ok"


@dataclass(frozen=True, slots=True)
class Checks:
    """The state of the parts. texts: "ok" for each part, or what is wrong and the remedy."""

    good: bool
    texts: dict[str, str]


class Health:
    """Runs the checks at most once in KEPT_S. A check raises Unavailable if its part does not work."""

    def __init__(self, parts: Mapping[str, Callable[[], None]]) -> None:
        self._parts = parts
        self._lock = threading.Lock()  # held while the parts are checked: one check at a time
        self._checks = Checks(True, {})
        self._checked_at = -math.inf

    def checks(self) -> Checks:
        """Return the state of the parts, at most KEPT_S old. A change of it is logged."""
        with self._lock:
            if time.monotonic() >= self._checked_at + KEPT_S:
                before, self._checks = self._checks, self._run()
                self._checked_at = time.monotonic()
                if before.good != self._checks.good:
                    _log.warning("health: %s", self._checks.texts)
        return self._checks

    def _run(self) -> Checks:
        texts = {}
        for name, check in self._parts.items():
            try:
                check()
                texts[name] = OK
            except Unavailable as error:
                texts[name] = str(error)
        return Checks(all(text == OK for text in texts.values()), texts)
