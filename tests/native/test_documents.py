"""Examples in documents do what they show, and their links lead somewhere."""

from __future__ import annotations

import doctest
import re
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path.relative_to(ROOT) for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that begins with `<!-- needs: distribution -->` is skipped where that is not installed."""
    needs = re.match(r"<!-- needs: (\S+) -->", (ROOT / path).read_text(encoding="utf-8"))
    if needs and not any(distributions(name=needs[1])):
        pytest.skip(f"needs {needs[1]}")
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(
        str(ROOT / path), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE, encoding="utf-8"
    )
    assert found.failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / path.parent / link).exists()] == []
