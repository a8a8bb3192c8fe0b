"""What decides the bytes that a worker makes, as one hash."""

import hashlib
from pathlib import Path

_HERE = Path(__file__).parent


def fingerprint_of(facts: dict[str, str]) -> str:
    """Workers with the same one give the same bytes."""
    lines = "".join(f"{name}={value}\n" for name, value in sorted(facts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def code_facts() -> dict[str, str]:
    """Hash over the code that decides pixels."""
    digest = hashlib.sha256()
    for path in sorted([*_HERE.glob("gpu/**/*.py"), *_HERE.glob("video/**/*.py")]):
        digest.update(f"{path.relative_to(_HERE)}\n".encode() + path.read_bytes())
    return {"code": digest.hexdigest()[:16]}
