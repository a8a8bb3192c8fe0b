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
