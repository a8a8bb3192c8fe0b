"""What can be said of the Dockerfiles without building them."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(ROOT.glob("services/*/Dockerfile"))
BY_SERVICE = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction and its argument, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def stages(dockerfile: Path) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, FROM first."""
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions(dockerfile):
        if instruction[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def test_every_service_has_one():
    assert [path.parent.name for path in DOCKERFILES] == ["gateway", "inference", "ui"]


@BY_SERVICE
def test_what_it_copies_is_there_and_reaches_the_build(dockerfile: Path):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    for name, argument in instructions(dockerfile):
        if name == "COPY" and "--from=" not in argument:
            for source in shlex.split(argument)[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == path or source.startswith(f"{path}/") for path in allowed), f"{source} is ignored"


@BY_SERVICE
def test_what_is_installed_together_is_pinned_to_the_same_versions(dockerfile: Path):
    named = set(re.findall(r"services/\w+/requirements[\w-]*\.txt", dockerfile.read_text()))
    assert "services/common/requirements-tracing.txt" in named
    pinned: dict[str, str] = {}
    for path in sorted(named):
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE):
            assert pinned.setdefault(name, version) == version, f"{name} in {path}"
    assert pinned["grpcio"]


ENTRIES = {
    "ui": ("ui.__main__", "common.check"),
    "gateway": ("gateway.__main__", "gateway.store.bucket", "common.check", "cli.command"),
    "inference": ("inference.__main__", "inference.models", "inference.delivery.command", "inference.gpu.rank", "common.check",
                  "cli.command"),
}  # fmt: skip
"""Modules that are run in each image."""


@BY_SERVICE
def test_what_is_run_finds_every_module_that_it_imports(dockerfile: Path):
    copies = [argument for name, argument in instructions(dockerfile) if name == "COPY" and "--from=" not in argument]
    copied = [ROOT / source for argument in copies for source in shlex.split(argument)[:-1]]
    seen: set[Path] = set()
    waiting = [module_file(f"services.{entry}") for entry in ENTRIES[dockerfile.parent.name]]
    while waiting:
        found = waiting.pop()
        if found is None or found in seen:
            continue
        seen.add(found)
        assert any(found == path or path in found.parents for path in copied), f"{found.relative_to(ROOT)} is not in the image"
        waiting += [module_file(name) for name in imported_at_once(found)]
    assert len(seen) > 5


def imported_at_once(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports as it is imported itself, and the packages that they are in."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("services"):
            parts = str(node.module).split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            yield from (f"{node.module}.{each.name}" for each in node.names)


def module_file(name: str) -> Path | None:
    """Where a module is; None where a name is none, or is made by the build."""
    path = ROOT.joinpath(*name.split("."))
    if "pb" in path.parts:
        return None
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.exists()), None)


@BY_SERVICE
def test_bases_are_arguments_with_a_pinned_default(dockerfile: Path):
    given = dict(argument.split("=", 1) for name, argument in instructions(dockerfile) if name == "ARG" and "=" in argument)
    names = {stage[0][1].split(" AS ")[-1] for stage in stages(dockerfile)}
    for stage in stages(dockerfile):
        base = stage[0][1].split()[0]
        if base not in names and not base.startswith("accelerators-"):
            assert re.fullmatch(r"\$\{[A-Z_]+\}", base), base
            assert re.search(r":\d+\.\d+\.\d+-[a-z0-9.-]+$", given[base[2:-1]]), base


@BY_SERVICE
def test_packages_are_those_of_the_lock(dockerfile: Path):
    runs = [argument for name, argument in instructions(dockerfile) if name == "RUN"]
    installs = [command for run in runs for command in run.split("&&") if "/bin/pip" in command]
    assert f"--requirement services/{dockerfile.parent.name}/requirements.txt" in " ".join(installs)
    for command in installs:
        if "--no-deps" not in command and "^torch==" not in command:
            assert "--requirement" in command
            assert len(command.split("install")[1].split()) == 1 + 2 * command.count("--requirement"), command


@BY_SERVICE
def test_it_runs_without_root_and_says_what_it_is(dockerfile: Path):
    last = stages(dockerfile)[-1]
    assert ("USER", "10001:10001") in last
    assert [name for name, _ in last].index("USER") > max(i for i, (name, _) in enumerate(last) if name in ("COPY", "RUN"))
    labels = next(argument for name, argument in last if name == "LABEL")
    for key in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{key}=" in labels
    assert {"HEALTHCHECK", "ENTRYPOINT", "STOPSIGNAL", "EXPOSE"} <= {name for name, _ in last}


@BY_SERVICE
def test_nothing_of_the_build_stays_but_packages_and_code(dockerfile: Path):
    copied = [argument for name, argument in stages(dockerfile)[-1] if name == "COPY"]
    assert all(argument.startswith("--from=build ") for argument in copied)
    assert "/opt/tools" not in " ".join(copied)


def test_the_stage_that_makes_the_grpc_code_is_the_same_everywhere():
    protos = [next(stage for stage in stages(path) if stage[0][1].endswith(" AS proto"))[1:] for path in DOCKERFILES]
    assert protos[0] == protos[1] == protos[2]


def test_only_inference_has_torch():
    for path in DOCKERFILES:
        assert ("torch" in path.read_text().lower().replace("image that has torch", "")) == (path.parent.name == "inference")


def test_secrets_are_mounted_and_never_arguments():
    for path in DOCKERFILES:
        for name, argument in instructions(path):
            if name in ("ARG", "ENV"):
                assert not re.search(r"TOKEN|PASSWORD|SECRET(?!S)|KEY", argument), argument


def test_the_build_sees_no_more_than_it_copies():
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert first == "*"
    assert not {"!.git", "!tests", "!.venv", "!."} & set(rest)
