"""Many workers at one SessionManager, with its invariants checked during the run and at the end.

`python -m tests.unit.sessions.hammer` runs it with greenlets; the tests run it with threads as well.
"""

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

WORKERS = 20
OPERATIONS = 2_000
USERS = 12
MAX_PER_USER = 5


def check(manager: Any) -> None:
    """Fail unless both directions of the registry agree."""
    with manager._lock:
        users = {user: dict(connections) for user, connections in manager._users.items()}
        count = manager._connections
    assert all(users.values()), "a user without connections is still there"
    assert all(len(connections) <= MAX_PER_USER for connections in users.values())
    assert sum(map(len, users.values())) == count
    for user, connections in users.items():
        for sid, connection in connections.items():
            assert (connection.sid, connection.user_id) == (sid, user)


def run(maybe_yield: Callable[[], object]) -> int:
    """Return how many connections were evicted. maybe_yield: lets others run, now and then."""
    from socket_server.sessions import SessionManager
    from tests.unit.fakes import connection

    manager = SessionManager(MAX_PER_USER)
    faults: list[str] = []
    evictions: list[int] = []
    left: list[Any] = []
    running = [WORKERS]

    def work(number: int) -> None:
        rng = random.Random(number)
        mine: dict[Any, str] = {}  # those of this worker that it has not removed; others may have evicted them
        evicted_here = 0
        try:
            for step in range(OPERATIONS):
                choice = rng.random()
                if choice < 0.5 or not mine:
                    added, _ = connection(f"{number}-{step}")
                    user = f"user-{rng.randrange(USERS)}"
                    evicted = manager.add(user, added)
                    assert evicted is not added
                    if evicted is not None:
                        evicted_here += 1
                        assert manager.remove(evicted) is None
                    mine[added] = user
                elif choice < 0.8:
                    leaving = rng.choice(list(mine))
                    assert manager.remove(leaving) in (mine.pop(leaving), None)
                    assert manager.remove(leaving) is None
                elif choice < 0.9:
                    again = rng.choice(list(mine))
                    assert manager.user_of(again) == mine[again]
                else:
                    found = manager.connections_of([f"user-{each}" for each in range(USERS)])
                    owners = [manager.user_of(each) for each in found.connections]
                    assert len(set(owners)) == found.users
                    assert all(owners.count(owner) <= MAX_PER_USER for owner in set(owners))
                    stats = manager.stats()
                    assert 0 <= stats.connected_users <= stats.total_connections <= USERS * MAX_PER_USER
                    assert (stats.connected_users == 0) == (stats.total_connections == 0)
                if step % 50 == 0:
                    check(manager)
                    maybe_yield()
        except Exception as error:
            faults.append(f"worker {number}: {error!r}")
        evictions.append(evicted_here)
        left.extend(mine)
        running[0] -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults
    check(manager)
    for connection_left in left:
        manager.remove(connection_left)
    check(manager)
    assert (manager.stats().connected_users, manager.stats().total_connections) == (0, 0)
    assert not manager._users
    return sum(evictions)


if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()
    print(f"evicted {run(lambda: time.sleep(0))}")
    sys.exit(0)
