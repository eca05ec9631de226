"""What stands in the documents stands there once."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.stem for path in DOCUMENTS])
def test_no_paragraph_stands_twice_in_a_document(path):
    paragraphs = Counter(part.strip() for part in path.read_text(encoding="utf-8").split("\n\n"))
    assert [part for part, count in paragraphs.items() if count > 1 and len(part) > 60] == []
