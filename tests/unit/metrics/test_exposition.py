"""The text that Prometheus scrapes, read back by the official parsers and by promtool."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from socket_server.metrics import families
from socket_server.metrics.exposition import OPENMETRICS, TEXT, render
from socket_server.metrics.snapshot import Snapshot, merged
from socket_server.metrics.worker import Metrics
from tests.servers import ROOT


def full() -> Snapshot:
    """Return the metrics of two workers with every family."""
    workers = []
    for _ in range(2):
        metrics = Metrics()
        metrics.with_redis()
        metrics.count_request("/users/{id}/notifications", "GET", 200, 0.001)
        for family in (families.SEND_BUFFER_BYTES, families.DELIVERY_QUEUE_BYTES, families.USERS):
            metrics.gauge(family, lambda: {(): 7.0})
        metrics.gauge(families.CONNECTIONS, lambda: {("websocket",): 3.0, ("polling",): 1.0})
        metrics.delivery_seconds.observe(0.003)
        metrics.delivery_seconds.observe(100.0)
        workers.append(metrics.snapshot())
    return merged(workers)


def parsed(accept: str) -> dict[str, Any]:
    text, content_type = render(full(), accept)
    parse = parse_openmetrics if content_type == OPENMETRICS else parse_text
    return {family.name: family for family in parse(text.decode())}


@pytest.mark.parametrize("accept", ["", "text/plain;version=0.0.4", "application/openmetrics-text; version=1.0.0"])
def test_every_family_is_exposed_with_its_type_and_help(accept: str) -> None:
    found = parsed(accept)
    assert set(found) == {family.name for family in families.FAMILIES}
    for family in families.FAMILIES:
        assert (found[family.name].type, found[family.name].documentation) == (family.kind.value, family.help)
        for sample in found[family.name].samples:
            assert set(sample.labels) - {"le"} == set(family.labels)


def test_the_content_type_says_which_format_it_is() -> None:
    assert render(full(), "*/*")[1] == TEXT
    assert render(full(), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")[1] == OPENMETRICS


def test_buckets_are_cumulative_and_end_in_all_values() -> None:
    samples = {(each.name, each.labels.get("le")): each.value for each in parsed("")[PREFIX + "delivery_seconds"].samples}
    assert samples[PREFIX + "delivery_seconds_bucket", "0.0025"] == 0
    assert samples[PREFIX + "delivery_seconds_bucket", "0.005"] == 2
    assert samples[PREFIX + "delivery_seconds_bucket", "+Inf"] == 4
    assert samples[PREFIX + "delivery_seconds_count", None] == 4
    assert samples[PREFIX + "delivery_seconds_sum", None] == pytest.approx(200.006)


PREFIX = families.PREFIX


def test_the_version_of_several_workers_is_still_1() -> None:
    (sample,) = parsed("")[PREFIX + "build_info"].samples
    assert sample.value == 1
    assert sample.labels["version"]


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=render(full(), "")[0], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_family_is_documented() -> None:
    page = Path(ROOT, "docs", "metrics.md").read_text(encoding="utf-8")
    for family in families.FAMILIES:
        suffix = "_total" if family.kind is families.Kind.COUNTER else ""
        assert f"`{family.name}{suffix}`" in page, family.name
        for label in family.labels:
            assert f"`{label}`" in page
