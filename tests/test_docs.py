"""The documentation's own pages: every Python block runs, every page stands in the navigation. (`make docs` builds them
with strict links; the commands of all pages are tried by `test_readme.py`.)"""

import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{n}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("block.py").write_text(block, encoding="utf-8")
    runpy.run_path("block.py")


@pytest.fixture(autouse=True)
def docs_folder(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")  # as MkDocs does for its hooks


def test_every_written_page_stands_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"([\w/.-]+\.md)", str(yaml.safe_load(text)["nav"])))
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert written <= named
    sources = runpy.run_path(str(ROOT / "docs" / "pages.py"))
    verticals = [load() for load in sources["find_verticals"]().values()]
    pages = set(sources["sources_of"](verticals).values())
    assert {page for page in named if page.startswith(("verticals/", "measured/"))} <= pages
    assert {f"verticals/{vertical.name}.md" for vertical in verticals} <= named
    assert {f"reference/{name}.md" for name in sources["REFERENCE"]} <= named


def test_links_of_a_readme_become_links_of_the_site():
    made = runpy.run_path(str(ROOT / "docs" / "pages.py"))
    verticals = [load() for load in made["find_verticals"]().values()]
    sources = made["sources_of"](verticals)
    front = made["rewritten"](ROOT / "README.md", "index.md", sources)
    assert "](verticals/audio.md)" in front
    assert "](pictures/demo.png)" in front
    assert "](measured/engine.md)" in front
    own = made["rewritten"](ROOT / "recsys" / "README.md", "verticals/recsys.md", sources)
    assert "](../measured/recsys.md)" in own
    assert "<math" in made["mathml"](r"\frac{a}{b}")


def test_the_page_of_messages_holds_what_is_raised():
    made = runpy.run_path(str(ROOT / "docs" / "messages.py"))
    told = made["messages_of"]
    assert told('raise InputError("no " + f"rows in {path.name}; write {a + b}")') == [
        "no rows in ‹path.name›; write ‹…›"
    ]
    assert told('raise InputError(f"{path}: {reason}")\nraise ValueError("not a sentence for users")') == []
    page = made["messages_page"](ROOT, {"tests", "benchmarks", "notebooks", "docs", "build", "runs"})
    assert "- ‹run_dir› is not a run folder: it has no config.yaml\n" in page
    assert page.count("\n- ") > 900
