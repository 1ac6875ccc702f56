"""Damaged files of every reader: taken, or left out with a sentence that names the file; never anything else.

The slow test prints the table. A reader to come is one line in `ways.READERS`.
"""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.discover import find_verticals
from counterpoint.common.vertical import Rejected

sys.path.insert(0, str(Path(__file__).parent))
from accidents import ACCIDENTS
from ways import READERS, attempt


def inject(folder: Path, reader, accidents) -> tuple[Counter, list[str]]:
    """How often each outcome, and what is none of them."""
    folder.mkdir(parents=True)
    file, out = folder / reader.file, folder / "out"
    reader.make(file)
    if reader.prepare:
        assert reader.prepare(file, out) == ""
    good, rng = file.read_bytes(), random.Random(reader.name)
    damaged = {"none": good, **{name: ACCIDENTS[name](good, rng) for name in accidents}}
    cases = [(reader.name, str(file), str(out), content) for content in damaged.values()]
    counts, wrong = Counter(), []
    for accident, (_, became) in zip(damaged, isolated_map(attempt, cases, timeout=60.0, name=lambda case: case[0])):
        words = became.reason if isinstance(became, Rejected) else became
        if accident == "none":
            assert words == "accepted", (reader.name, words)
        elif words in ("accepted", "named"):
            counts[words] += 1
        else:
            wrong.append(f"{reader.name}, {accident}: {words}")
    return counts, wrong


def test_every_importer_has_its_line():
    for name, load in find_verticals().items():
        for importer in load().importers:
            assert any(r.way == f"{name} data import {importer.name}" for r in READERS), (name, importer.name)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_some_accidents(tmp_path, monkeypatch, reader):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    assert inject(tmp_path / "in", reader, ("emptied", "cut after 4 of 8"))[1] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_accident_of_every_reader(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    total, faults, table = Counter(), [], []
    for number, reader in enumerate(READERS):
        try:
            counts, wrong = inject(tmp_path / str(number), reader, ACCIDENTS)
        except Warning as said:  # an error in tests; the other readers are tried all the same
            counts, wrong = Counter(), [f"{reader.name}: {type(said).__name__}: {said}"]
        total, faults = total + counts, faults + wrong
        row = f"{reader.name:50} named {counts['named']:3}  accepted {counts['accepted']:3}  else {len(wrong)}"
        table.append(row)
    table.append(f"{sum(total.values()) + len(faults)} files: {total['named']} named, {total['accepted']} accepted")
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *table, *faults, ""]))
    assert faults == []
    assert total["named"] > total["accepted"]
