"""Reloads: gunicorn's master tells its workers, in shared memory, that other workers take over the listening sockets.

There are two kinds: SIGHUP starts new workers of the same master; SIGUSR2 starts a new master with workers of its own. A
worker that is told to stop and has a successor stops accepting, and moves its connections soon. A new master that has
ended (the new version failed and was killed) is no successor.
"""

import mmap
import os

_RELOADS = slice(0, 8)  # number of SIGHUPs
_NEW_MASTER = slice(8, 16)  # process id of the new master; 0: none
_SERVING = slice(16, 24)  # the newest reload whose workers serve


class ReloadState:
    """What the master reports. Make it before the workers are forked: they share its memory."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 24)

    def announce_reload(self) -> None:
        """Called in the master before new workers take over (SIGHUP)."""
        self.write(_RELOADS, self.read(_RELOADS) + 1)

    def announce_new_master(self) -> None:
        """Called in the process that is about to become the new master (SIGUSR2)."""
        self.write(_NEW_MASTER, os.getpid())

    def of_new_worker(self) -> "Successors":
        """Return the view of a worker that starts now."""
        return Successors(self, self.read(_RELOADS))

    def read(self, field: slice) -> int:
        return int.from_bytes(self._memory[field], "big")

    def write(self, field: slice, value: int) -> None:
        self._memory[field] = value.to_bytes(8, "big")


class Successors:
    """What one worker knows of its successors."""

    def __init__(self, state: ReloadState, generation: int) -> None:
        """generation: the number of reloads when this worker started."""
        self._state = state
        self._generation = generation

    def announce_serving(self) -> None:
        """Report that this worker serves from now on."""
        self._state.write(_SERVING, max(self._state.read(_SERVING), self._generation))

    def loading(self) -> bool:
        """Return whether a reload has started whose workers do not serve yet."""
        return self._state.read(_RELOADS) != self._generation and self._state.read(_SERVING) <= self._generation

    def exist(self) -> bool:
        """Return whether other workers serve the listening sockets, or are about to.

        To be called regularly: a new master that has ended is removed before its process id can belong to another
        process.
        """
        new_master = self._state.read(_NEW_MASTER)
        if new_master and not _runs(new_master):
            self._state.write(_NEW_MASTER, 0)
            new_master = 0
        return bool(new_master) or self._state.read(_RELOADS) != self._generation


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True
