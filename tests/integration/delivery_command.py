"""The models command with a catalogue from a file: ``python -m tests.integration.delivery_command CATALOGUE.json …``."""

import json
import os
import resource
import sys
from pathlib import Path

from services.inference.delivery.catalogue import Catalogue, ModelSet, SourceFile
from services.inference.delivery.command import main


def write_catalogue(path: Path, catalogue: Catalogue) -> None:
    """For another process."""
    models = {name: [[f.role, f.repository, f.file, f.sha256] for f in model.files] for name, model in catalogue.items()}
    path.write_text(json.dumps(models))


def read_catalogue(path: Path) -> Catalogue:
    """What :func:`write_catalogue` wrote."""
    names = ("role", "repository", "file", "sha256")
    return {
        name: ModelSet(name=name, title=name, files=tuple(SourceFile(**dict(zip(names, f, strict=True))) for f in files))
        for name, files in json.loads(path.read_text()).items()
    }


if __name__ == "__main__":
    if limit := os.environ.get("TEST_FILE_SIZE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sys.exit(main(sys.argv[2:], os.environ, catalogue=read_catalogue(Path(sys.argv[1]))))
