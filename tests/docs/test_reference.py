"""The generated pages are what the code says now."""

import re
from pathlib import Path

import pytest

from tests.docs.generate.reference import markdown

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([DOCS.parent / "README.md", *DOCS.rglob("*.md")])


def test_the_reference_is_current() -> None:
    made = markdown()
    assert (DOCS / "reference.md").read_text() == made, (
        "run python -m tests.docs.generate.reference > docs/reference.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert re.match(r"https?:", target) or (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        assert page.name == "README.md" or f"({page.relative_to(DOCS)})" in index, page
