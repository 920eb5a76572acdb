"""Every link within the repository leads to a file, and to a heading in it."""

import re
from pathlib import Path

import pytest

from tests.documents.markdown import Page, page, pages
from tests.servers import ROOT


@pytest.mark.parametrize("document", pages(), ids=lambda document: document.name)
def test_links_resolve(document: Page) -> None:
    broken = [f"line {line}: {target}" for line, target in document.links() if not _resolves(document, target)]
    assert not broken


def _resolves(document: Page, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True  # another site: this machine may have no internet
    path, _, anchor = target.partition("#")
    file = (document.path.parent / path).resolve() if path else document.path
    if not file.exists() or not file.is_relative_to(ROOT):
        return False
    if not anchor:
        return True
    name = str(file.relative_to(ROOT))
    return file.suffix == ".md" and anchor in page(name).anchors()


def test_a_heading_that_is_cited_exists() -> None:
    """Code cites a page and, after a comma, the heading in quotation marks."""
    cited = re.compile(r'(docs/[a-z-]+\.md), ((?:"[^"]+"(?:,| and)? ?)+)')
    missing = []
    for file in _sources():
        text = re.sub(r"\s*\n[\s#]*", " ", file.read_text(encoding="utf-8"))
        for match in cited.finditer(text):
            headings = {re.sub(r"^#+ ", "", line) for line in page(match[1]).prose if line.startswith("#")}
            wanted = re.findall(r'"([^"]+)"', match[2])
            missing += [f"{file.relative_to(ROOT)}: {match[1]}, {name!r}" for name in wanted if name not in headings]
    assert not missing


def _sources() -> list[Path]:
    folders = [ROOT / "socket_server", ROOT / "tests", ROOT / "benchmarks"]
    found = [file for folder in folders for kind in ("*.py", "*.lua") for file in folder.rglob(kind)]
    return [file for file in found if "node_modules" not in file.parts]


def test_the_readme_is_short() -> None:
    text = page("README.md").path.read_text(encoding="utf-8")
    assert len(text.split()) < 1_200
    assert len(text.splitlines()) < 200
