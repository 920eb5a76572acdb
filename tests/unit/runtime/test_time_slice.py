"""Time slices on gevent. Each test runs in a process of its own, because the tests' process is not patched."""

import subprocess
import sys

# Counts how often a greenlet that sleeps 1 ms at a time runs beside `work()`.
_SCRIPT = """
from gevent import monkey
monkey.patch_all()
import time
import gevent
from socket_server.runtime.time_slice import TIME_SLICE_S, TimeSlice, YieldingLock

wakeups = 0

def sleep_a_little():
    global wakeups
    while True:
        gevent.sleep(0.001)
        wakeups += 1
{work}
gevent.spawn(sleep_a_little)
gevent.sleep(0.01)
wakeups = 0
work()
print(wakeups)
"""

# One greenlet works for 40 time slices.
_ONE_GREENLET = """
def work():
    time_slice = TimeSlice()
    ends = time.perf_counter() + 40 * TIME_SLICE_S
    while time.perf_counter() < ends:
        time_slice.maybe_yield()
"""

# 40 greenlets, all runnable at once, work for one time slice each.
_MANY_GREENLETS = """
def work_for_one_time_slice():
    with lock:
        ends = time.perf_counter() + TIME_SLICE_S
        while time.perf_counter() < ends:
            pass

lock = YieldingLock()

def work():
    gevent.joinall([gevent.spawn(work_for_one_time_slice) for _ in range(40)])
"""


def wakeups_beside(work: str) -> int:
    script = _SCRIPT.format(work=work)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def test_timers_run_between_the_time_slices_of_one_greenlet() -> None:
    assert wakeups_beside(_ONE_GREENLET) > 10  # of about 40; 0 without yielding


def test_timers_run_between_the_time_slices_of_many_greenlets() -> None:
    assert wakeups_beside(_MANY_GREENLETS) > 10  # of about 40; one or two without the lock
