"""How many connections each worker on this port holds, in memory that they share, so that new ones go where fewest are.

Each connection wakes all workers, and whoever accepts it first has it: nearly always the same one.
"""

import mmap
import time
from collections.abc import Iterable
from typing import Any

_SLOTS = 1_024  # a worker's is its number in gunicorn's count; there are at most 256 at a time, and as many successors
_slots = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("Q")  # how many it holds, and 1; 0 where there is none
_alive = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("d")  # when it last said so; all processes have this clock

# So many more than another may a worker hold before it lets others go first.
_UNEVEN = 8
_UNEVEN_PART = 0.1

# For so long a worker that holds too many leaves a new connection to the others. What they have left then, it takes.
CROWDED_S = 0.003

# A worker that has said nothing for so long stands still: it takes nothing, however few it holds.
STILL_S = 1.0

# A worker that is about to go would only turn it away: it looks again after so long whether there are others.
LEAVING_S = 0.05


class WorkerLoad:
    """What one worker holds."""

    def __init__(self, number: int) -> None:
        self._slot = number % _SLOTS
        self._ended = False

    def beat(self) -> None:
        """Tell the others that this worker is alive; to be called several times in STILL_S."""
        _alive[self._slot] = time.monotonic()

    def accept_delay_s(self, held: int, waited: bool = False) -> float:
        """Tell the others how many connections this worker holds; return how long it leaves a new one to them.

        waited: it has left it to them once.
        """
        if self._ended:
            return LEAVING_S if any(_slots) else 0.0
        _slots[self._slot] = held + 1
        self.beat()
        if waited or not _crowded(held, _slots.tolist()):
            return 0.0
        since = time.monotonic() - STILL_S
        moving = [told for told, alive in zip(_slots, _alive, strict=True) if alive > since]
        return CROWDED_S if _crowded(held, moving) else 0.0

    def end(self) -> None:
        """This worker is about to go."""
        self._ended = True
        _slots[self._slot] = 0


def _crowded(held: int, told: Iterable[int]) -> bool:
    """Whether a worker that holds so many holds clearly more than one of these (as they stand in _slots)."""
    fewest = min(filter(None, told)) - 1
    return held > fewest + _UNEVEN + fewest * _UNEVEN_PART


def forget(_: Any, worker: Any) -> None:
    """gunicorn's hook in the master when a worker has ended, however it did."""
    WorkerLoad(worker.age).end()
