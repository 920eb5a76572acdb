"""The text that Prometheus scrapes, from a snapshot (Prometheus text format 0.0.4, OpenMetrics 1.0)."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.utils import floatToGoString

from socket_server.metrics.families import BUILD_INFO, FAMILIES, Family, Kind
from socket_server.metrics.snapshot import Buckets, Sample, Snapshot

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Return the text and its content type. accept: the header of the request; OpenMetrics only if it asks for that."""
    families = _Families(snapshot)
    if "application/openmetrics-text" in accept:
        text: bytes = openmetrics_exposition.generate_latest(families)  # type: ignore[no-untyped-call]
        return text, OPENMETRICS
    return generate_latest(families), TEXT


class _Families:
    """A snapshot as prometheus_client reads it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in snapshot:
            self._samples.setdefault(sample.family, []).append(sample)

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            samples = self._samples.get(family.name)
            if samples:
                yield _metric(family, samples)


def _metric(family: Family, samples: list[Sample]) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for sample in samples:
            assert isinstance(sample.value, Buckets)
            histogram.add_metric(sample.labels, _cumulative(family, sample.value), sample.value.sum)
        return histogram
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for sample in samples:
        assert not isinstance(sample.value, Buckets)
        metric.add_metric(sample.labels, min(sample.value, 1.0) if family is BUILD_INFO else sample.value)
    return metric


def _cumulative(family: Family, value: Buckets) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, value.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
