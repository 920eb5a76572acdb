"""Offsets: a new one is greater than every one before."""

import itertools
import threading
import time
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from socket_server.notifications.offsets import Offsets


def test_an_offset_is_the_time_in_microseconds_as_a_decimal_string() -> None:
    offsets = Offsets(clock_ns=lambda: 1_700_000_000_123_456_789)
    assert offsets.head == "1700000000123456"
    assert offsets.next() == "1700000000123457", "the clock has not moved on since the start"


def test_the_head_is_the_newest_offset() -> None:
    offsets = Offsets()
    assert offsets.next() == offsets.head
    assert offsets.head == offsets.head


def test_an_offset_follows_the_clock_where_it_moves() -> None:
    now = [1_000_000_000]
    offsets = Offsets(clock_ns=lambda: now[0])
    now[0] += 5_000_000_000
    assert offsets.next() == "6000000"


@given(st.integers(0, 2**62), st.lists(st.integers(0, 2**62), max_size=30))
def test_offsets_grow_whatever_the_clock_does(start: int, times: list[int]) -> None:
    clock = itertools.chain([start], times)
    offsets = Offsets(clock_ns=lambda: next(clock))
    seen = [int(offsets.head), *(int(offsets.next()) for _ in times)]
    assert all(before < after for before, after in itertools.pairwise(seen))


def test_offsets_stay_below_what_64_bits_hold() -> None:
    assert 10**15 < int(Offsets().next()) < 2**63


def test_threads_never_get_the_same_offset() -> None:
    offsets = Offsets(clock_ns=lambda: 0)
    taken: list[list[int]] = [[] for _ in range(8)]

    def take(mine: list[int]) -> None:
        mine.extend([int(offsets.next()) for _ in range(2_000)])

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything: Iterator[int] = itertools.chain.from_iterable(taken)
    assert len(set(everything)) == 16_000
    for mine in taken:
        assert mine == sorted(mine)


def test_the_clock_is_the_real_one_by_default() -> None:
    before = time.time_ns() // 1_000
    assert before <= int(Offsets().next()) <= time.time_ns() // 1_000 + 1_000
