"""docs/metrics.md names every metric of the scheduler."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from scheduler.service import metrics

DOCUMENT = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


def test_every_metric_of_the_scheduler_stands_in_the_document() -> None:
    names = [sample.name for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase) for sample in metric.describe()]
    assert names
    missing = [name for name in names if f"`{name}" not in DOCUMENT and f"`{name}_total" not in DOCUMENT]
    assert missing == []
