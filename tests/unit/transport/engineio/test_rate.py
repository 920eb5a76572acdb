"""Token buckets: how much passes on average and at once, for one client and for many by name."""

from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio.rate import RateByName, TokenBucket


def test_a_burst_passes_and_after_it_the_average() -> None:
    bucket = TokenBucket(per_second=2, burst=5, now=100)
    assert [bucket.take(100) for _ in range(5)] == [True] * 5
    assert not TokenBucket(per_second=2, burst=5, now=100).take(100, 6)
    assert not bucket.take(100)
    assert bucket.wait_s(100) == 1.0
    assert bucket.take(101)


def test_an_idle_bucket_fills_up_to_its_burst() -> None:
    bucket = TokenBucket(per_second=2, burst=5, now=0)
    assert [bucket.take(1_000_000) for _ in range(6)] == [True] * 5 + [False]


def test_the_debt_above_the_limit_is_bounded() -> None:
    bucket = TokenBucket(per_second=1, burst=3, now=0)
    for _ in range(10_000):
        bucket.take(0)
    assert bucket.wait_s(0) <= 4
    assert bucket.take(4)


def test_asking_for_the_wait_takes_no_token() -> None:
    bucket = TokenBucket(per_second=1, burst=1, now=0)
    assert [bucket.wait_s(0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(0)
    assert bucket.wait_s(0) == 1.0
    assert bucket.wait_s(0.5) == 0.5
    assert bucket.wait_s(9) == 0.0


@given(st.floats(0.1, 100), st.floats(1, 100), st.lists(st.floats(0, 5), max_size=100))
def test_no_more_than_the_burst_and_the_average_ever_passes(per_second: float, burst: float, gaps: list[float]) -> None:
    bucket, now, passed = TokenBucket(per_second, burst, 0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now)
        assert passed <= burst + now * per_second + 1e-6


def test_each_name_has_its_own_bucket() -> None:
    rates = RateByName(per_second=1, burst=2)
    assert [rates.take("a", 0) for _ in range(3)] == [True, True, False]
    assert rates.take("b", 0)
    assert rates.wait_s("a", 0) > 0
    assert rates.wait_s("b", 0) == 0
    assert rates.wait_s("unused", 0) == 0


def test_the_least_recently_used_names_are_removed() -> None:
    rates = RateByName(per_second=1, burst=1, most=3)
    for name in ("a", "b", "c"):
        rates.take(name, 0)
    rates.take("a", 0)
    rates.take("d", 0)  # removes b
    assert rates.wait_s("a", 0) > 0
    assert rates.wait_s("b", 0) == 0
    for number in range(1_000):
        rates.take(f"address-{number}", 0)
    assert len(rates._buckets) == 3
