"""Who takes over from a worker on the same listening sockets. gunicorn's master tells its workers, by shared memory.

A worker that is told to stop and has a successor leaves it all new connections, and lets its own move there soon. A new
master that has ended again (the new version was no good, and was killed) is no successor.
"""

import mmap
import os
from typing import Any

_shared = mmap.mmap(-1, 24)
_RELOADS = slice(0, 8)  # how many there have been
_NEW_MASTER = slice(8, 16)  # the id of its process; 0: there is none
_SERVING = slice(16, 24)  # the newest reload whose workers serve


def announce_reload(_: Any) -> None:
    """gunicorn's hook before new workers take over (SIGHUP)."""
    _write(_RELOADS, _read(_RELOADS) + 1)


def announce_new_master(_: Any) -> None:
    """gunicorn's hook in the process that is about to become a new master (SIGUSR2)."""
    _write(_NEW_MASTER, os.getpid())


class Reload:
    """What a worker knows of its successors."""

    def __init__(self) -> None:
        self._born = _read(_RELOADS)

    def serve(self) -> None:
        """This worker serves from now on."""
        _write(_SERVING, max(_read(_SERVING), self._born))

    def loading(self) -> bool:
        """Whether there is a successor, by a reload, that does not serve yet."""
        return _read(_RELOADS) != self._born and _read(_SERVING) <= self._born

    def begun(self) -> bool:
        """Whether others serve the listening sockets now, or are about to.

        To be called again and again: a new master that has ended is forgotten, before its id is another process's.
        """
        new_master = _read(_NEW_MASTER)
        if new_master and not _runs(new_master):
            _write(_NEW_MASTER, 0)
            new_master = 0
        return bool(new_master) or _read(_RELOADS) != self._born


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True


def _read(field: slice) -> int:
    return int.from_bytes(_shared[field], "big")


def _write(field: slice, value: int) -> None:
    _shared[field] = value.to_bytes(8, "big")
