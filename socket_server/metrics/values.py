"""The values of one worker's metrics. The code that counts holds these objects and adds to them."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence


class Counter:
    """A number that only grows: `counter.value += 1`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class LabeledCounter:
    """A counter for each of a few label values, which are known beforehand: any other one is counted as `other`."""

    __slots__ = ("values",)

    def __init__(self, labels: Iterable[str]) -> None:
        self.values = dict.fromkeys(labels, 0)

    def add(self, label: str, count: int = 1) -> None:
        """Count for a label value."""
        if label not in self.values:
            label = OTHER
        self.values[label] = self.values.get(label, 0) + count


OTHER = "other"


class Histogram:
    """Counts of observed values by bucket. bounds: upper bounds, inclusive, ascending; one bucket above them is implied."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value
