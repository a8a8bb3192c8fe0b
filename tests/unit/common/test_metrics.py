import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from services.common.metrics import GatewayMetrics, InferenceMetrics, UiMetrics

ALL = (GatewayMetrics, InferenceMetrics, UiMetrics)
# What Prometheus' own advice calls base units, and things that are counted.
UNITS = ("seconds", "bytes", "megapixels", "info", "joules", "watts", "celsius", "ratio")
PEOPLE_AND_WORK = {"job", "job_id", "owner", "user", "subject", "request_id", "trace_id", "upload_id", "span"}


def families(cls: type) -> list[Metric]:
    registry = CollectorRegistry()
    cls(registry)
    return list(registry.collect())


@pytest.mark.parametrize("cls", ALL)
def test_names_follow_the_rules_of_prometheus(cls: type):
    for family in families(cls):
        assert re.fullmatch(r"seedvr2_[a-z]+(_[a-z]+)*", family.name), family.name
        assert not re.search(
            r"_(ms|millis|minutes|hours|kb|mb|gb|count|sum|bucket|total|percent|duration|size|time)$", family.name
        )
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family.name
        if re.search("duration|_age|_wait|memory|_size", family.name) and not re.search("out_of_memory", family.name):
            assert family.name.endswith(UNITS), family.name


@pytest.mark.parametrize("cls", ALL)
def test_no_label_carries_a_job_or_a_person(cls: type):
    registry = CollectorRegistry()
    labels = {name for metric in vars(cls(registry)).values() for name in getattr(metric, "_labelnames", ())}
    assert not labels & PEOPLE_AND_WORK
    assert all(re.fullmatch("[a-z_]+", label) and label not in ("le", "quantile", "instance") for label in labels)


@pytest.mark.parametrize("cls", ALL)
def test_the_text_says_what_counts_up(cls: type):
    registry = CollectorRegistry()
    cls(registry)
    text = generate_latest(registry).decode()
    for name in re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE):
        assert name.endswith("_total")
    for name in re.findall(r"^# TYPE (\S+) (?:gauge|histogram)$", text, re.MULTILINE):
        assert not name.endswith("_total") or name.endswith("_created")


def test_stages_are_told_apart_by_a_label_and_may_take_minutes():
    (stage,) = (m for m in vars(InferenceMetrics(CollectorRegistry())).values() if m._name == "seedvr2_stage_duration_seconds")
    assert stage._labelnames == ("stage",)
    assert stage._kwargs["buckets"][-1] >= 600


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say(cls: type):
    registry = CollectorRegistry()
    cls(registry)
    checked = subprocess.run(["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
