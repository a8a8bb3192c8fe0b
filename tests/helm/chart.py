"""The chart as rendered by the real Helm, of both major versions: values in, objects out."""

import functools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.helm import DIRECTORY

CHART = Path(__file__).parents[2] / "helm" / "seedvr2"
CI_VALUES = sorted((CHART / "ci").glob("*.yaml"))
HELMS = ("helm4", "helm3")
OLDEST, NEWEST = "1.30", "1.37"
"""Kubernetes versions that the chart is checked against."""
RELEASE, NAMESPACE = "demo", "video"

Object = dict[str, Any]


class Refused(Exception):
    """Helm refused the values; its words."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of a release."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def get(self, kind: str, name: str) -> Object:
        """One object, named without the release's part."""
        found = {each["metadata"]["name"]: each for each in self.all(kind)}
        whole = f"{RELEASE}-seedvr2-{name}" if name else f"{RELEASE}-seedvr2"
        assert whole in found, f"no {kind} {whole}; there are {', '.join(sorted(found))}"
        return found[whole]

    def pods(self) -> dict[str, Object]:
        """The spec of every pod that will run, by the name of what makes it."""
        made = {each["metadata"]["name"]: each["spec"]["template"] for each in self.objects if "template" in each.get("spec", {})}
        for each in self.all("LeaderWorkerSet"):
            parts = each["spec"]["leaderWorkerTemplate"]
            made |= {f"{each['metadata']['name']}-{role}": parts[f"{role}Template"] for role in ("leader", "worker")}
        return made | {each["metadata"]["name"]: each for each in self.all("Pod")}


def render(values: Object | None = None, *files: Path, helm: str = HELMS[0], kubernetes: str = NEWEST) -> Rendered:
    """The objects for some values. Raises Refused."""
    text = run(
        helm,
        "template",
        RELEASE,
        str(CHART),
        f"--namespace={NAMESPACE}",
        f"--kube-version={kubernetes}",
        values=values,
        files=files,
    )
    return Rendered(tuple(each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each))


def run(helm: str, *arguments: str, values: Object | None = None, files: tuple[Path, ...] = ()) -> str:
    """What a command of Helm writes. Raises Refused."""
    return _run(helm, arguments, json.dumps(values or {}), files)


@functools.cache
def _run(helm: str, arguments: tuple[str, ...], values: str, files: tuple[Path, ...]) -> str:
    binary = DIRECTORY / helm
    if not binary.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("Helm is not here: python -m scripts.helm")
    named = [word for file in files for word in ("--values", str(file))]
    homes = {f"HELM_{name}_HOME": str(DIRECTORY / "home") for name in ("CACHE", "CONFIG", "DATA")}
    said = subprocess.run(
        [binary, *arguments, *named, "--values", "-"],
        input=values,
        capture_output=True,
        text=True,
        env=os.environ | homes,
        check=False,
    )
    if said.returncode:
        raise Refused(said.stderr + said.stdout)
    return said.stdout


def container(pod: Object, name: str) -> Object:
    """A container of a pod, init containers too."""
    spec = pod["spec"]
    return next(each for each in [*spec["containers"], *spec.get("initContainers", [])] if each["name"] == name)


def variables(box: Object) -> dict[str, str]:
    """The environment of a container, as far as it is plain text."""
    return {each["name"]: each.get("value", "") for each in box.get("env", [])}
