"""Turns: on gevent nobody is interrupted, so whoever has much to do gives way of its own accord."""

import time

# No heartbeat, request or other client waits much longer than this for one greenlet.
TURN_S = 0.005


def let_arrive() -> None:
    """Let whoever is ready to run now do so first."""
    time.sleep(0)  # gevent's, where it runs


class Turn:
    """One greenlet's turn, from its making or its last pause on."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew: the greenlet has just waited for something."""
        self._ends = time.perf_counter() + TURN_S

    def give_way(self) -> None:
        """Let the hub serve everyone else, where the turn is over."""
        if time.perf_counter() > self._ends:
            time.sleep(0)  # gevent's, where it runs
            self.renew()
