"""What gunicorn's master shares with its workers, and the hooks by which gunicorn reports to it.

gunicorn reads its settings anew at each SIGHUP, but its arbiter lives on. So the shared memory is made once, when the
master starts, and the arbiter carries it.
"""

from typing import Any

from socket_server.metrics.shared import SharedMetrics
from socket_server.workers import graceful_listener
from socket_server.workers.load import LoadTable
from socket_server.workers.reload import ReloadState


class SharedState:
    """Memory that the master shares with all workers."""

    def __init__(self) -> None:
        self.load = LoadTable()
        self.reloads = ReloadState()
        self.metrics = SharedMetrics()


def start(arbiter: Any) -> None:
    """Make the shared memory. To be called once, in the hook `on_starting`."""
    arbiter.shared_state = SharedState()


def pre_fork(arbiter: Any, worker: Any) -> None:
    """Give a new worker the shared memory, and tell it whether its listening sockets outlive the server."""
    worker.shared_state = arbiter.shared_state
    worker.inherited_listeners = graceful_listener.is_inherited(arbiter)


def on_reload(arbiter: Any) -> None:
    """Called before new workers take over (SIGHUP)."""
    arbiter.shared_state.reloads.announce_reload()


def pre_exec(arbiter: Any) -> None:
    """Called in the process that is about to become a new master (SIGUSR2)."""
    arbiter.shared_state.reloads.announce_new_master()


def child_exit(arbiter: Any, worker: Any) -> None:
    """Called when a worker has ended, however it did."""
    arbiter.shared_state.load.of_worker(worker.age).end()
    arbiter.shared_state.metrics.retire(worker.age)
