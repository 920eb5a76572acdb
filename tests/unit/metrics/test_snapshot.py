"""Snapshots: their sum over workers, and what remains of a worker that has ended."""

from socket_server.metrics import families
from socket_server.metrics.snapshot import Buckets, Sample, Snapshot, decode, encode, lasting, merged
from socket_server.metrics.worker import Metrics


def value(snapshot: Snapshot, family: families.Family, *labels: str) -> float | Buckets:
    (found,) = [each.value for each in snapshot if (each.family, each.labels) == (family.name, labels)]
    return found


def worker(connects: int) -> Metrics:
    metrics = Metrics()
    metrics.connects.value = connects
    metrics.disconnects.add("ping_timeout", connects)
    metrics.delivery_seconds.observe(0.02)
    metrics.count_request("/broadcast", "POST", 200, 0.001)
    metrics.gauge(families.USERS, lambda: {(): connects})
    return metrics


def test_a_snapshot_survives_its_encoding() -> None:
    snapshot = worker(3).snapshot()
    assert list(decode(encode(snapshot))) == list(snapshot)


def test_counters_gauges_and_histograms_of_workers_are_added() -> None:
    both = merged([worker(3).snapshot(), worker(4).snapshot()])
    assert value(both, families.CONNECTS) == 7
    assert value(both, families.DISCONNECTS, "ping_timeout") == 7
    assert value(both, families.USERS) == 7
    assert value(both, families.HTTP_REQUESTS, "/broadcast", "POST", "200") == 2
    delivery = value(both, families.DELIVERY_SECONDS)
    assert isinstance(delivery, Buckets)
    assert (sum(delivery.counts), delivery.sum) == (2, 0.04)


def test_the_start_time_of_several_workers_is_that_of_the_oldest() -> None:
    name = families.PROCESS_START_TIME_SECONDS.name
    assert merged([[Sample(name, (), 20.0)], [Sample(name, (), 10.0)]]) == [Sample(name, (), 10.0)]


def test_counters_of_a_worker_that_has_ended_remain_and_its_gauges_do_not() -> None:
    remains = lasting(worker(3).snapshot())
    assert value(remains, families.CONNECTS) == 3
    assert value(remains, families.DELIVERY_SECONDS)
    assert not [each for each in remains if each.family in (families.USERS.name, families.WORKERS.name)]
    assert [each for each in remains if each.family == families.PROCESS_CPU_SECONDS.name]


def test_methods_of_no_meaning_are_one_label() -> None:
    metrics = Metrics()
    for method in ("BREW", "X" * 5_000, "get"):
        metrics.count_request("unmatched", method, 405, 0.0)
    assert value(metrics.snapshot(), families.HTTP_REQUESTS, "unmatched", "other", "405") == 3
