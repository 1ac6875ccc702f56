"""The README's examples run as printed, and what it links to exists."""

import re
import shlex
from pathlib import Path

import pytest

from counterpoint.common.cli.listings import list_systems
from counterpoint.common.cli.main import main
from counterpoint.common.cli.options import parsing_only
from counterpoint.common.cli.verbs import UMBRELLA, verbs_of
from counterpoint.common.discover import find_verticals

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "runs") for part in path.relative_to(ROOT).parts)
)


def test_opens_with_the_two_commands():
    first = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


def test_the_python_example_runs():
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_make_targets_named_in_the_pages_exist():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE))
        assert named <= targets, f"{page.name} names make targets that do not exist: {named - targets}"


def _commands(page):
    """Command lines of a page: those of fenced or indented blocks, and whole ones between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^ *(counterpoint [a-z][^\n]*)", text, re.MULTILINE)
    lines += re.findall(r"`(counterpoint [a-z][^`\n]* [^`\n]*)`", text)
    return [line for line in lines if "..." not in line]


COMMANDS = [(page, line) for page in PAGES for line in _commands(page)]


def test_commands_are_found_in_every_shape():
    found = [line for _, line in COMMANDS]
    assert len(found) > 40
    for start in ("counterpoint timeseries demo", "counterpoint graphs data import molecules", "counterpoint losses"):
        assert any(line.startswith(start) for line in found), start


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda x: x if isinstance(x, str) else x.stem)
def test_every_documented_command_is_understood(page, line, tmp_path, monkeypatch, capsys):
    """The real parsers take each line as printed: verb, system, options and the types of their values."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    words = words[: words.index(">")] if ">" in words else words
    if "--config" in words:  # such a file is what --print_config writes
        assert main([*words[:3], "--print_config"]) == 0
        Path(words[words.index("--config") + 1]).write_text(capsys.readouterr().out, encoding="utf-8")
    with parsing_only():
        assert main(words) == 0, capsys.readouterr().err


def test_commands_named_in_the_pages_exist():
    """Every `counterpoint VERTICAL VERB` a page shows is offered. Systems of `pretrain` too."""
    verticals = {name: load() for name, load in find_verticals().items()}
    for page in PAGES:
        for words in re.findall(r"^counterpoint ([^\n#]*)", page.read_text(), re.MULTILINE):
            name, *rest = words.split()
            if name in UMBRELLA:
                continue
            assert name in verticals, f"{page.name}: no vertical {name}"
            assert rest[0] in verbs_of(verticals[name]), f"{page.name}: {name} has no verb {rest[0]}"
            if rest[0] == "pretrain" and not rest[1].startswith("-"):
                assert rest[1] in {entry.name for entry in verticals[name].systems}


def test_the_table_of_verticals_is_complete():
    """One row per registered vertical, naming its package, its extra and every system, those that are ready in bold."""
    text = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `counterpoint (\w+)` \|(.*)\|$", text, re.MULTILINE))
    verticals = {name: load() for name, load in find_verticals().items()}
    assert set(rows) == set(verticals)
    for name, vertical in verticals.items():
        assert f"`{vertical.package.rpartition('.')[2]}`" in rows[name]
        assert f"| `{vertical.extra}` |" in rows[name]
        assert set(re.findall(r"`([\w-]+)`", rows[name].rpartition("|")[2])) == {e.name for e in vertical.systems}
        ready = {row["name"] for row in list_systems(vertical) if row["status"] == "ready"}
        assert set(re.findall(r"\*\*`([\w-]+)`\*\*", rows[name].rpartition("|")[2])) == ready
