"""What the chart gives to Prometheus and Grafana."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.dashboards import DASHBOARDS, DIRECTORY, text_of
from tests.helm.chart import CHART, HELMS, render

ALERTS = CHART / "files" / "alerts.yaml"
ON = {"metrics": {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}}


def promtool(*arguments: str, directory: Path) -> str:
    binary = shutil.which("promtool")
    if binary is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("promtool is not installed: it comes with Prometheus")
    said = subprocess.run([binary, *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_alerts_speak_when_they_should_and_only_then(tmp_path: Path):
    for path in (ALERTS, Path(__file__).parent / "alerts_test.yaml"):
        shutil.copy(path, tmp_path)
    promtool("check", "rules", "alerts.yaml", directory=tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml", directory=tmp_path)


@pytest.mark.parametrize("helm", HELMS)
def test_the_rule_object_holds_the_files_alerts(helm: str, tmp_path: Path):
    spec = render(ON, helm=helm).get("PrometheusRule", "")["spec"]
    assert spec["groups"] == yaml.safe_load(ALERTS.read_text())["groups"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    promtool("check", "rules", "rules.yaml", directory=tmp_path)


def test_every_alert_says_what_is_wrong_and_what_to_do():
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_alerts_can_be_left_out_and_others_added():
    own = {"name": "own", "rules": [{"alert": "Mine", "expr": "vector(1)"}]}
    values = {"metrics": {"prometheusRule": {"enabled": True, "disabled": ["Seedvr2GpuHot"], "extraGroups": [own]}}}
    groups = render(values).get("PrometheusRule", "")["spec"]["groups"]
    names = {rule["alert"] for group in groups for rule in group["rules"]}
    assert "Seedvr2GpuHot" not in names
    assert {"Mine", "Seedvr2GpuThrottled"} <= names


@pytest.mark.parametrize("helm", HELMS)
def test_dashboards_come_as_config_maps_that_grafanas_sidecar_finds(helm: str):
    rendered = render(ON, helm=helm)
    for name in DASHBOARDS:
        found = rendered.get("ConfigMap", f"dashboard-{name}")
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(found["data"][f"seedvr2-{name}.json"]) == json.loads(text_of(name))


def test_dashboard_files_are_what_the_script_writes():
    assert {path.stem: path.read_text() for path in DIRECTORY.glob("*.json")} == {name: text_of(name) for name in DASHBOARDS}


def test_dashboards_have_unique_panels_in_a_grid():
    for name in DASHBOARDS:
        panels = json.loads(text_of(name))["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len(panels) == len({panel["title"] for panel in panels})


def test_neither_is_there_unless_it_is_asked_for():
    rendered = render()
    assert rendered.all("PrometheusRule") == []
    assert [each for each in rendered.all("ConfigMap") if "dashboard" in each["metadata"]["name"]] == []
