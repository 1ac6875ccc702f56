"""What `counterpoint losses` says of an objective is what the tests hold."""

import ast
import json
from pathlib import Path

import pytest

from counterpoint.common import losses
from counterpoint.common.cli.listings import list_losses
from counterpoint.common.losses import objectives

FOLDER = Path(__file__).parent
NAMES = {entry.name for entry in objectives()}
# Objectives that are compared inside of another one, whose official call computes them.
PARTS = {"LocalMI": "TCL"}
FIXTURES = set(json.loads((FOLDER / "oracles" / "common_losses.json").read_text())["fixtures"])
for more in ("structured_losses.json", "view_losses.json", "released_losses.json"):
    FIXTURES |= set(json.loads((FOLDER / "oracles" / more).read_text()))


def words(node):
    """Names and texts in a piece of code; of an f-string its beginning."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def compared(file):
    """The objectives named by those tests of a file that look into a frozen fixture."""
    functions = {f.name: set(words(f)) for f in ast.parse(file.read_text()).body if isinstance(f, ast.FunctionDef)}
    for name, found in functions.items():
        for helper in set(functions) & found:
            found |= functions[helper]
        families = any(f.startswith(("dexml_", "hcl_", "gram")) for f in found)
        frozen = found & FIXTURES or "rebalancing.json" in found or families
        if name.startswith("test_") and frozen:
            yield from found & NAMES


def test_official_numbers_are_said_only_where_a_frozen_fixture_is_compared():
    held = {name for file in FOLDER.glob("test_*.py") if file.name != "test_cards.py" for name in compared(file)}
    assert "InfoNCE" in held
    assert "CWCL" not in held
    held |= {part for part, whole in PARTS.items() if whole in held}
    said = {entry.name for entry in objectives() if entry.status == "official numbers"}
    assert said - held == set()


@pytest.mark.parametrize(("part", "whole"), PARTS.items())
def test_a_part_is_computed_by_the_whole(part, whole):
    built = getattr(losses, whole)(4, 8)
    assert any(type(module).__name__ == part for module in built.modules())


def test_the_status_is_the_beginning_of_what_is_checked():
    for entry in objectives():
        assert entry.status in ("official numbers", "equation", "our reading")
        assert entry.checked.startswith("official") == (entry.status == "official numbers"), entry.name
        assert ("our reading" in entry.checked) == (entry.status == "our reading"), entry.name


def test_the_listing_says_the_status():
    listed = list_losses()
    assert {row["name"]: row["status"] for row in listed} == {e.name: e.status for e in objectives()}
    assert "status" in listed.columns
    assert len({row["status"] for row in listed}) == 3
