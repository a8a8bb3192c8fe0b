"""Values: what is refused, what is documented, and that every variable is a setting."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
import yaml

from scripts.chart import CHART, rows, schema_text, with_table
from scripts.reference import SETTINGS
from services.common.settings import read_settings
from tests.helm.chart import CI_VALUES, HELMS, Object, Refused, render, run, variables

EVERY_CI = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
MISTAKES: dict[str, tuple[Object, str]] = {
    "a misspelt component": ({"gatway": {}}, "gatway"),
    "a misspelt key": ({"gateway": {"replica": 2}}, "replica"),
    "a misspelt key of a pool": ({"inference": {"pools": [{"name": "a", "gpu": 1}]}}, "gpu"),
    "a misspelt setting": ({"gateway": {"settings": {"max_uplaod_bytes": 1}}}, "max_uplaod_bytes"),
    "a misspelt setting of a pool": ({"inference": {"pools": [{"name": "a", "settings": {"dtpye": "float32"}}]}}, "dtpye"),
    "a pool without a name": ({"inference": {"pools": [{"model": "nano"}]}}, "name"),
    "a pool whose name is no label": ({"inference": {"pools": [{"name": "GPU_1"}]}}, "name"),
    "a model that is not there": ({"inference": {"pools": [{"name": "a", "model": "seedvr2-13b"}]}}, "model"),
    "a word for a number": ({"gateway": {"replicas": "two"}}, "replicas"),
    "a store of no known kind": ({"store": {"type": "nfs"}}, "type"),
    "an endpoint that is no URL": ({"minio": {"endpoint": "s3.example:9000"}}, "endpoint"),
    "a digest that is none": ({"ui": {"image": {"digest": "latest"}}}, "digest"),
    "negative seconds": ({"gateway": {"drainSeconds": -1}}, "drainSeconds"),
    "a volume of no known kind": ({"models": {"volume": {"type": "nfs"}}}, "type"),
}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_where_they_are(mistake: str, helm: str):
    values, where = MISTAKES[mistake]
    with pytest.raises(Refused) as refused:
        render(values, helm=helm)
    assert where in str(refused.value)


def test_as_a_part_of_another_chart_it_takes_what_others_put_into_global():
    assert render({"global": {"imageRegistry": "a.example", "somebodyElses": {"key": 1}}}).objects


@EVERY_CI
def test_every_variable_is_a_setting(values: Path):
    known = {f"{prefix}_{field.name}".upper() for prefix, cls in SETTINGS.values() for field in dataclasses.fields(cls)}
    for name, pod in render({}, values).pods().items():
        for box in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            unknown = {each for each in variables(box) if each.startswith("SEEDVR2_")} - known
            assert not unknown, f"{name}: {', '.join(sorted(unknown))}"


@EVERY_CI
def test_services_take_their_settings(values: Path):
    for pod in render({}, values).pods().values():
        for box in pod["spec"]["containers"]:
            for prefix, cls in SETTINGS.values():
                said = {name: value for name, value in variables(box).items() if name.startswith(f"{prefix}_")}
                # Files are not here; what refuses them is tested where they are read.
                without_files = {name: value for name, value in said.items() if not name.endswith("_FILE")}
                if without_files:
                    assert read_settings(cls, prefix, without_files)


def test_the_schema_is_what_values_and_settings_say():
    assert (CHART / "values.schema.json").read_text() == schema_text(), "run .venv/bin/python -m scripts.chart"


def test_the_readme_lists_every_value_with_its_default_and_meaning():
    readme = (CHART / "README.md").read_text()
    assert readme == with_table(readme), "run .venv/bin/python -m scripts.chart"
    assert not [path for path, _, meaning in rows() if not meaning]


def test_the_chart_has_the_version_of_the_project():
    version = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


@pytest.mark.parametrize("values", [None, *CI_VALUES], ids=lambda path: path.stem if path else "defaults")
def test_notes_say_the_next_commands(values: Path | None):
    files = (values,) if values else ()
    said = run("helm4", "install", "demo", str(CHART), "--namespace=video", "--dry-run=client", files=files)
    notes = said.split("NOTES:")[1]
    assert "helm -n video test demo" in notes
    assert "kubectl -n video" in notes
    assert "seedvr2 restore old.mp4 -o restored.mp4 --server" in notes
    assert "<no value>" not in notes
    assert "%!" not in notes
