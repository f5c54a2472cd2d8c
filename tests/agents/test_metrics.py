"""What a scrape shows, and that docs/metrics.md says the same as the table in the code."""

from __future__ import annotations

import dataclasses
import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agents import metrics, telemetry
from agents.devices import DeviceFault, FaultCode
from agents.exporter import Exporter, PortUnavailableError
from agents.metrics import METRICS, AgentCollector, Kind
from agents.settings import AgentSettings
from agents.simulated import SimulatedDeviceSet
from agents.telemetry import LeasedSlice, Telemetry

CONTRACT = Path(__file__).parents[2] / "docs" / "metrics.md"
SCRAPE_SECONDS_MAX = 10


class Node:
    """A simulated node of two devices and its scrapes."""

    def __init__(self) -> None:
        self.devices = SimulatedDeviceSet("node-a", device_count=2)
        self.uuid = self.devices.inventory()[0].uuid
        self.telemetry = Telemetry(self.devices, node="node-a")
        self.registry = CollectorRegistry()
        self.registry.register(AgentCollector(self.telemetry.snapshot, version="1.2.3"))

    def scrape(self, name: str) -> dict[str, float]:
        """Return the value of each series of a metric, by its device or, where there is none, its collector or lease."""
        values = {}
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                if sample.name == name:
                    values[sample.labels.get("lease") or sample.labels.get("device") or sample.labels.get("collector", "")] = sample.value
        return values


@pytest.fixture
def node() -> Node:
    held = Node()
    held.telemetry.bind("lea_a", [LeasedSlice(held.uuid, "whole", "h200", 1000)], now_ms=0)
    held.telemetry.sample(5_000)
    return held


def test_series_of_a_lease_carries_the_labels_that_billing_reads(node: Node) -> None:
    text = generate_latest(node.registry).decode()
    labels = f'device="{node.uuid}",flavor="h200",lease="lea_a",node="node-a",simulated="true",slice="whole"'
    (line,) = re.findall(r"^terrace_slice_leased_gpu_seconds_total\{(.*)\} (.*)$", text, re.MULTILINE)
    assert (sorted(line[0].split(",")), float(line[1])) == (labels.split(","), 5.0)


def test_counters_outlive_their_lease_for_the_last_scrape_and_gauges_do_not(node: Node) -> None:
    node.telemetry.release("lea_a", now_ms=6_000)
    assert node.scrape("terrace_slice_leased_gpu_seconds_total") == {"lea_a": 6.0}
    assert node.scrape("terrace_lease_cpu_seconds_total") == {"lea_a": 0.0}
    assert node.scrape("terrace_slice_gpus") == node.scrape("terrace_lease_processes") == {}


def test_series_of_an_ended_lease_vanish_by_themselves(node: Node) -> None:
    node.telemetry.release("lea_a", now_ms=6_000)
    node.telemetry.sample(6_000 + telemetry.LINGER_MS)
    assert b"lea_a" not in generate_latest(node.registry)


def test_device_in_trouble_is_unhealthy_and_has_no_readings(node: Node) -> None:
    node.devices.inject_fault(node.uuid, DeviceFault(FaultCode.LOST, 15))
    node.telemetry.sample(6_000)
    assert node.scrape("terrace_device_healthy")[node.uuid] == 0
    assert node.uuid not in node.scrape("terrace_device_power_watts")


def test_each_collector_reports_its_duration_and_success(node: Node) -> None:
    assert node.scrape("terrace_agent_collector_success") == {"devices": 1, "processes": 1}
    assert set(node.scrape("terrace_agent_collector_duration_seconds")) == {"devices", "processes"}


def test_node_that_was_never_sampled_can_be_scraped() -> None:
    fresh = Node()
    assert fresh.scrape("terrace_device_power_watts") == {}
    assert fresh.scrape(metrics.BUILD_INFO) == {"": 1}


def test_series_of_a_full_node_stay_within_the_documented_bound() -> None:
    full = Telemetry(SimulatedDeviceSet("node-a"), node="node-a")
    for index, device in enumerate(full.snapshot().devices):
        full.bind(f"lea_{index}", [LeasedSlice(device.uuid, f"1g.18gb@{cell}", "h200.1g.18gb", 125) for cell in range(7)], now_ms=0)
    full.sample(5_000)
    registry = CollectorRegistry()
    registry.register(AgentCollector(full.snapshot, version="1.2.3"))
    series = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert len(series) <= 8 * 12 + 56 * 5 + 8 * 3 + 10


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_name_follows_the_conventions(row: metrics.Row) -> None:
    assert re.fullmatch(r"terrace_[a-z_]+", row.name)
    assert (row.kind is Kind.COUNTER) == row.name.endswith("_total")


def test_documented_contract_is_the_table_in_the_code() -> None:
    rows = re.findall(r"^\| `(terrace_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", CONTRACT.read_text(), re.MULTILINE)
    documented = [(name, kind, re.findall(r"`(\w+)`", labels), dcgm.strip(), meaning.strip()) for name, kind, labels, dcgm, meaning in rows]
    coded = [(row.name, str(row.kind), list(row.labels), row.dcgm or "-", row.help) for row in METRICS]
    build_info = (metrics.BUILD_INFO, "gauge", list(metrics.BUILD_INFO_LABELS), "-", "Always 1; the labels say what runs here.")
    assert documented == [*coded, build_info]


def test_documented_limits_are_the_constants_in_the_code() -> None:
    text = CONTRACT.read_text()
    defaults = {field.name: field.default for field in dataclasses.fields(AgentSettings)}
    assert f"`sample_ms` = {defaults['sample_ms']:,}" in text
    for name in ("LINGER_MS", "GAP_MAX_MS", "OPEN_LEASES_MAX", "ENDED_LEASES_MAX"):
        assert f"`{name}` = {getattr(telemetry, name):,}" in text


def test_metrics_are_served_on_loopback(node: Node) -> None:
    with (
        Exporter(node.telemetry.snapshot, version="1.2.3", port=0) as exporter,
        urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=SCRAPE_SECONDS_MAX) as answer,
    ):
        assert b'terrace_slice_gpus{device="' in answer.read()


def test_port_in_use_is_named_with_its_setting(node: Node) -> None:
    with (
        Exporter(node.telemetry.snapshot, version="1.2.3", port=0) as exporter,
        pytest.raises(PortUnavailableError, match=rf"metrics_port: cannot listen on 127\.0\.0\.1:{exporter.port}"),
    ):
        Exporter(node.telemetry.snapshot, version="1.2.3", port=exporter.port)
