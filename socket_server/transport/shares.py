"""How many connections each worker on this port holds, in memory that they share, so that new ones go where fewest are.

Each connection wakes all workers, and whoever accepts it first has it: nearly always the same one.
"""

import mmap
from typing import Any

_SLOTS = 1_024  # a worker's is its number in gunicorn's count; there are at most 256 at a time, and as many successors
_slots = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("Q")  # how many it holds, and 1; 0 where there is none

# So many more than another may a worker hold before it lets others go first.
_UNEVEN = 8
_UNEVEN_PART = 0.1

# For so long a worker that holds too many leaves a new connection to the others. What they have left then, it takes.
CROWDED_S = 0.003

# A worker that is about to go would only turn it away: it looks again after so long whether there are others.
LEAVING_S = 0.05


class Share:
    """What one worker holds."""

    def __init__(self, number: int) -> None:
        self._slot = number % _SLOTS
        self._ended = False

    def wait_s(self, held: int, waited: bool = False) -> float:
        """Tell the others how many connections this worker holds; return how long it leaves a new one to them.

        waited: it has left it to them once.
        """
        if self._ended:
            return LEAVING_S if any(_slots) else 0.0
        _slots[self._slot] = held + 1
        fewest = min(filter(None, _slots.tolist())) - 1
        return CROWDED_S if held > fewest + _UNEVEN + fewest * _UNEVEN_PART and not waited else 0.0

    def end(self) -> None:
        """This worker is about to go."""
        self._ended = True
        _slots[self._slot] = 0


def forget(_: Any, worker: Any) -> None:
    """gunicorn's hook in the master when a worker has ended, however it did."""
    Share(worker.age).end()
