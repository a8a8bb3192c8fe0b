"""Containers of the images under test, run as a strict cluster would: read-only, no capabilities, no root."""

import functools
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STRICT = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never", "--no-healthcheck", "--memory=3g")
# For machines whose podman can't use crun, or may not raise limits.
_OTHER_RUNTIME = ("--runtime=runc",)
_OTHER_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
_START_S, _POLL_S = 120.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container that runs."""

    name: str
    """Of the container."""

    host: str
    """Its address on the bridge, for this machine and for other containers."""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end."""
        return podman(*_global_flags(), "exec", self.name, *command)

    def wait_well(self, address: str) -> None:
        """Return once the image's own health command finds ``address`` well."""
        deadline = time.monotonic() + _START_S
        while (said := self.run("python", "-m", "services.common.check", address)).returncode:
            assert time.monotonic() < deadline, f"{said.stderr}\n{self.log}"
            time.sleep(_POLL_S)

    def wait_said(self, words: str) -> None:
        """Return once its log has ``words``."""
        deadline = time.monotonic() + _START_S
        while words not in self.log:
            assert time.monotonic() < deadline, self.log
            time.sleep(_POLL_S)

    @property
    def log(self) -> str:
        """What it wrote."""
        said = podman("logs", self.name)
        return said.stdout + said.stderr


def podman(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run podman; the caller looks at the exit code."""
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=600, check=False)


def start(
    image: str,
    name: str,
    *,
    settings: Mapping[str, Any],
    volumes: Mapping[str, str | Path] | None = None,
    command: Sequence[str] = (),
) -> Container:
    """Start a service with settings; ``volumes`` are paths in it, each with a volume's name or a path of this machine, and
    ``command`` replaces what the image would run."""
    stop(name)
    flags = [f"--env={key}={value}" for key, value in settings.items()]
    flags += [f"--volume={source}:{path}" for path, source in (volumes or {}).items()]
    said = podman(*_global_flags(), "run", "--detach", f"--name={name}", *_STRICT, *_limits(), *flags, image, *command)
    assert said.returncode == 0, said.stderr
    host = podman("inspect", name, "--format", "{{.NetworkSettings.IPAddress}}").stdout.strip()
    return Container(name=name, host=host)


def run_once(image: str, *, settings: Mapping[str, Any], command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in an image, as a Job does, to its end."""
    flags = [f"--env={key}={value}" for key, value in settings.items()]
    return podman(
        *_global_flags(), "run", "--rm", *_STRICT, *_limits(), *flags, f"--entrypoint={command[0]}", image, *command[1:]
    )


def stop(name: str) -> int:
    """Stop a container in order, remove it; its exit code."""
    podman("stop", "--time=60", name)
    said = podman("inspect", name, "--format", "{{.State.ExitCode}}").stdout.strip()
    podman("rm", "--force", "--volumes", name)
    return int(said or 0)


def inspect(image: str) -> dict[str, Any]:
    """What is recorded about an image."""
    said = podman("image", "inspect", image)
    assert said.returncode == 0, said.stderr
    return dict(json.loads(said.stdout)[0])


@functools.cache
def _flags(image: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for runtime in ((), _OTHER_RUNTIME):
        for limits in ((), _OTHER_LIMITS):
            said = podman(*runtime, "run", "--rm", *_STRICT, *limits, "--network=none", "--entrypoint=true", image)
            if said.returncode == 0:
                return runtime, limits
    raise AssertionError(f"podman runs no container here: {said.stderr}")


def _global_flags() -> tuple[str, ...]:
    return _flags(PROBE)[0]


def _limits() -> tuple[str, ...]:
    return _flags(PROBE)[1]


PROBE = "localhost/seedvr2-ui:standin"
"""The image by which is found out how containers run here."""

STANDIN = "localhost/seedvr2-standin:bookworm"
"""The base of all of them: for programs of this machine that should run beside them."""
