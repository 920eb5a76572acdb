"""Counters and histograms of one worker."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from socket_server.metrics.families import FAMILIES, Kind
from socket_server.metrics.values import OTHER, Histogram, LabeledCounter

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_each_value_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [sum(bisect_left(BOUNDS, value) == at for value in values) for at in range(4)]
    assert histogram.sum == sum(values)


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(0.1)
    histogram.observe(10.0)
    assert histogram.counts == [1, 0, 1, 0]


def test_an_unknown_label_is_counted_as_other_so_that_their_number_is_bounded() -> None:
    counter = LabeledCounter(("a", "b"))
    for label in ("a", "x", "y", "a"):
        counter.add(label)
    assert counter.values == {"a": 2, "b": 0, OTHER: 2}


def test_the_buckets_of_every_histogram_ascend() -> None:
    for family in FAMILIES:
        assert list(family.buckets) == sorted(set(family.buckets))
        assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
        assert family.help.endswith(".")
