"""The values of a worker at one moment, as bytes, and their sum over workers. Pure functions."""

from collections.abc import Iterable, Sequence

import msgspec

from socket_server.metrics.families import FAMILIES, Family, Kind, Merge

Labels = tuple[str, ...]


class Buckets(msgspec.Struct, frozen=True, array_like=True):
    """A histogram: how many values fell into each bucket (not cumulative), and the sum of all values."""

    counts: tuple[int, ...]
    sum: float


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value of a family."""

    family: str
    labels: Labels
    value: float | Buckets


Snapshot = Sequence[Sample]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Sample, ...])
_BY_NAME = {family.name: family for family in FAMILIES}


def encode(snapshot: Snapshot) -> bytes:
    return _encoder.encode(tuple(snapshot))


def decode(encoded: bytes) -> Snapshot:
    """Return the snapshot. Raises msgspec.DecodeError."""
    return _decoder.decode(encoded)


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return one snapshot for several workers."""
    found: dict[tuple[str, Labels], float | Buckets] = {}
    for snapshot in snapshots:
        for sample in snapshot:
            key = (sample.family, sample.labels)
            known = found.get(key)
            found[key] = sample.value if known is None else _together(_BY_NAME.get(sample.family), known, sample.value)
    return [Sample(family, labels, value) for (family, labels), value in found.items()]


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return what remains of a worker that has ended: its counters and histograms, not its gauges."""
    kinds = (Kind.COUNTER, Kind.HISTOGRAM)
    return [each for each in snapshot if each.family in _BY_NAME and _BY_NAME[each.family].kind in kinds]


def _together(family: Family | None, one: float | Buckets, other: float | Buckets) -> float | Buckets:
    if isinstance(one, Buckets) and isinstance(other, Buckets):
        return Buckets(tuple(a + b for a, b in zip(one.counts, other.counts, strict=True)), one.sum + other.sum)
    assert not isinstance(one, Buckets)
    assert not isinstance(other, Buckets)
    return min(one, other) if family is not None and family.merge is Merge.MINIMUM else one + other
