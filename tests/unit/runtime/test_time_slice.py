"""Turns on gevent, each in a process of its own: the tests' own is not patched."""

import subprocess
import sys

# Counts how often a greenlet that sleeps a millisecond at a time is served beside `much()`.
_BESIDE = """
from gevent import monkey
monkey.patch_all()
import time
import gevent
from socket_server.runtime.time_slice import TIME_SLICE_S, TimeSlice, YieldingLock

served = 0

def sleep_a_little():
    global served
    while True:
        gevent.sleep(0.001)
        served += 1
{much}
gevent.spawn(sleep_a_little)
gevent.sleep(0.01)
served = 0
much()
print(served)
"""

# Works through 40 turns without a pause.
_MUCH_WORK = """
def much():
    time_slice = TimeSlice()
    ends = time.perf_counter() + 40 * TIME_SLICE_S
    while time.perf_counter() < ends:
        time_slice.maybe_yield()
"""

# The same, shared out among 40 greenlets, each with a turn's work, which are ready to run at the same time.
_MANY_WHO_WORK = """
def work():
    with lock:
        ends = time.perf_counter() + TIME_SLICE_S
        while time.perf_counter() < ends:
            pass

lock = YieldingLock()

def much():
    gevent.joinall([gevent.spawn(work) for _ in range(40)])
"""


def served_beside(much: str) -> int:
    script = _BESIDE.format(much=much)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def test_between_two_turns_timers_and_sockets_are_looked_at() -> None:
    assert served_beside(_MUCH_WORK) > 10  # of about 40; it was none


def test_between_two_of_many_who_work_timers_and_sockets_are_looked_at() -> None:
    assert served_beside(_MANY_WHO_WORK) > 10  # of about 40; it is one or two without the queue
