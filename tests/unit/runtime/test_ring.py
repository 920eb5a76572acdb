"""Write frames to many sockets in one system call, with real sockets and the kernel's io_uring."""

import errno
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from socket_server.runtime.ring import SIZE, Ring

Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def ring() -> Iterator[Ring]:
    try:
        made = Ring()
    except OSError as error:
        pytest.skip(f"io_uring is not available: {error}")
    yield made
    made.close()


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    """Connected socket pairs, as many as one call takes: the server's end and the client's."""
    made = [socket.socketpair() for _ in range(SIZE)]
    yield made
    for ours, theirs in made:
        ours.close()
        theirs.close()


def numbers(pairs: Pairs) -> list[int]:
    return [ours.fileno() for ours, _ in pairs]


def test_every_socket_gets_the_frame(ring: Ring, pairs: Pairs) -> None:
    assert ring.send([b"a frame"] * SIZE, numbers(pairs)) == {}
    assert {theirs.recv(100) for _, theirs in pairs} == {b"a frame"}


def test_every_socket_gets_its_own_frame(ring: Ring, pairs: Pairs) -> None:
    frames = [b"%d," % at * (at + 1) for at in range(SIZE)]
    assert ring.send(frames, numbers(pairs)) == {}
    assert [theirs.recv(10_000) for _, theirs in pairs] == frames


def test_no_socket_and_one_socket_are_served(ring: Ring, pairs: Pairs) -> None:
    assert ring.send([], []) == {}
    assert ring.send([b"a frame"], numbers(pairs[:1])) == {}
    assert pairs[0][1].recv(100) == b"a frame"


@pytest.mark.parametrize("own", [False, True], ids=["one frame", "different frames"])
def test_frames_arrive_in_order_when_the_queues_wrap_around(ring: Ring, pairs: Pairs, own: bool) -> None:
    chance = random.Random(1)
    expected = [b""] * SIZE
    for round_ in range(100):
        chosen = chance.sample(range(SIZE), chance.randint(1, SIZE))
        frames = [b"<%d>" % round_] * len(chosen) if not own else [b"<%d: %d>" % (round_, each) for each in chosen]
        assert ring.send(frames, [pairs[each][0].fileno() for each in chosen]) == {}
        for each, frame in zip(chosen, frames, strict=True):
            expected[each] += frame
    assert [theirs.recv(10_000) for _, theirs in pairs] == expected


def test_a_full_socket_is_reported_and_delays_no_other(ring: Ring, pairs: Pairs) -> None:
    full = pairs[3][0]
    full.setblocking(False)
    with suppress(BlockingIOError):
        while full.send(b"x" * 65_536):
            pass
    assert ring.send([b"a frame"] * SIZE, numbers(pairs)) == {3: -errno.EAGAIN}
    assert all(theirs.recv(100) == b"a frame" for at, (_, theirs) in enumerate(pairs) if at != 3)


def test_a_partial_write_is_reported_with_its_size(ring: Ring, pairs: Pairs) -> None:
    small, large, gone = b"a small one", bytes(range(256)) * 16_000, b"for a closed socket"
    pairs[2][1].close()
    taken = ring.send([small, large, gone, small], numbers(pairs[:4]))
    assert set(taken) == {1, 2}
    assert taken[2] == -errno.EPIPE
    assert pairs[0][1].recv(100) == pairs[3][1].recv(100) == small
    received = b""
    while len(received) < taken[1]:
        received += pairs[1][1].recv(1_000_000)
    assert 0 < taken[1] < len(large)
    assert received == large[: taken[1]]


def test_a_blocking_socket_does_not_block_the_call(ring: Ring, pairs: Pairs) -> None:
    frame = b"x" * 4_000_000
    taken = ring.send([frame] * 2, numbers(pairs[:2]))
    assert set(taken) == {0, 1}
    for at, (_, theirs) in enumerate(pairs[:2]):
        assert 0 < taken[at] < len(frame)
        received = 0
        while received < taken[at]:
            received += len(theirs.recv(1_000_000))
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    assert ring.send([b"the next"] * 2, numbers(pairs[:2])) == {}
    assert pairs[0][1].recv(100) == b"the next"


def test_ended_and_closed_sockets_are_reported_with_their_errors(ring: Ring, pairs: Pairs) -> None:
    fds = numbers(pairs)
    pairs[0][1].close()
    pairs[SIZE - 1][0].close()
    assert ring.send([b"a frame"] * SIZE, fds) == {0: -errno.EPIPE, SIZE - 1: -errno.EBADF}
    assert all(theirs.recv(100) == b"a frame" for _, theirs in pairs[1:-1])


def test_a_refused_ring_is_an_oserror_and_leaves_nothing_open(ring: Ring) -> None:
    program = """
import os, resource
from socket_server.runtime.ring import Ring

def opened():
    return len(os.listdir("/proc/self/fd"))

before = opened()
for room in range(5):  # a ring needs three descriptors, and two for its trial
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + room, 4096))
    try:
        Ring()
    except OSError as error:
        refused = error.errno
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4096))
    print(room, refused, opened() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{room} {errno.EMFILE} 0" for room in range(5)]
