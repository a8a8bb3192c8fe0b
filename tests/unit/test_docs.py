"""What the documentation says is what the code does."""

import re
from pathlib import Path

import pytest

from scripts.reference import PAGES

ROOT = Path(__file__).parents[2]
PROSE = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("helm/**/*.md"), *ROOT.glob("k8s/*.md")]
)


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_says(name: str):
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run .venv/bin/python -m scripts.reference"


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_every_make_target_that_is_named_exists(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets


def source_texts() -> str:
    """All Python of the services, with texts in one piece that are written in several."""
    whole = "\n".join(path.read_text() for path in sorted((ROOT / "services").rglob("*.py")) if "pb" not in path.parts)
    return re.sub(r"\"\s*\n\s*f?\"", "", whole)


def test_the_words_by_which_trouble_is_known_are_those_of_the_code():
    page, source = (ROOT / "docs" / "troubleshooting.md").read_text(), source_texts()
    quoted = re.findall(r"(?<![*\w])\*([^*\n]+)\*(?![*\w])", page)
    parts = [part.strip() for text in quoted for part in re.split(r"…|\b[A-Z]+\b|\d+", text)]
    missing = [part for part in parts if len(part) > 3 and part not in source and part not in {"Workers", "Gateways"}]
    assert not missing
    assert len(parts) > 10


@pytest.mark.parametrize("name", ["troubleshooting.md", "sizing.md", "backup.md", "upgrade.md"])
def test_settings_and_metrics_that_are_named_exist(name: str):
    page, docs = (ROOT / "docs" / name).read_text(), ROOT / "docs"
    known = (docs / "settings.md").read_text() + (docs / "metrics.md").read_text()
    named = set(re.findall(r"\b(?:SEEDVR2_[A-Z0-9_]+|seedvr2_[a-z_]+[a-z])\b", page))
    assert {each for each in named if f"`{each}" not in known} == set()


def test_the_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if f"(docs/{page.name})" not in readme] == []
