"""Turns on gevent, each in a process of its own: the tests' own is not patched."""

import subprocess
import sys

# The same, shared out among 40 greenlets, each with a turn's work, which are ready to run at the same time.
_BESIDE_MANY_WHO_WORK = """
from gevent import monkey
monkey.patch_all()
import time
import gevent
from socket_server.transport.turns import TURN_S, Queue

served = 0

def sleep_a_little():
    global served
    while True:
        gevent.sleep(0.001)
        served += 1

def work():
    with queue:
        ends = time.perf_counter() + TURN_S
        while time.perf_counter() < ends:
            pass

queue = Queue()
gevent.spawn(sleep_a_little)
gevent.sleep(0.01)
served = 0
gevent.joinall([gevent.spawn(work) for _ in range(40)])
print(served)
"""

# Works through 40 turns without a pause, beside a greenlet that sleeps a millisecond at a time and counts.
_BESIDE_MUCH_WORK = """
from gevent import monkey
monkey.patch_all()
import time
import gevent
from socket_server.transport.turns import TURN_S, Turn

served = 0

def sleep_a_little():
    global served
    while True:
        gevent.sleep(0.001)
        served += 1

gevent.spawn(sleep_a_little)
gevent.sleep(0.01)
served = 0
turn = Turn()
ends = time.perf_counter() + 40 * TURN_S
while time.perf_counter() < ends:
    turn.give_way()
print(served)
"""


def test_between_two_turns_timers_and_sockets_are_looked_at() -> None:
    done = subprocess.run([sys.executable, "-c", _BESIDE_MUCH_WORK], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10  # of about 40; it was none


def test_between_two_of_many_who_work_timers_and_sockets_are_looked_at() -> None:
    done = subprocess.run([sys.executable, "-c", _BESIDE_MANY_WHO_WORK], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10  # of about 40; it is one or two without the queue
