"""Several runs as sections of a `Report`: what differs between them, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from counterpoint.common.metrics import LabelFree
from counterpoint.common.report import Report, compare_runs
from counterpoint.common.runs.measure import Examined, not_paired
from counterpoint.common.runs.page import add_gallery, add_map, curves
from counterpoint.common.vertical import Vertical


def names_of_runs(runs: Sequence[Path]) -> list[str]:
    """A short name for each run: its folder's, or as much of the path as tells the runs apart.

    >>> names_of_runs([Path("runs/a"), Path("runs/b")]), names_of_runs([Path("x/run"), Path("y/run")])
    (['a', 'b'], ['x/run', 'y/run'])
    """
    paths = [run.resolve() for run in runs]
    longest = max(len(path.parts) for path in paths)
    for depth in range(1, longest):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def fill_comparison(
    page: Report,
    vertical: Vertical,
    seen: Mapping[str, Examined],
    folders: Mapping[str, Path],
    *,
    examples: int,
    n_boot: int,
    seed: int,
) -> None:
    """Add the sections of a comparison; the first run is the one the others are set against."""
    names = list(seen)
    first = seen[names[0]]
    reasons = {name: not_paired(first, seen[name]) for name in names[1:]}
    page.section("Runs")
    rows = [
        [name, type(e.encoded.system).__name__, len(e.encoded), len(set(e.encoded.groups)), str(folders[name])]
        for name, e in seen.items()
    ]
    page.table("What is compared", rows, ["run", "system", "samples", "groups", "folder"])
    if changed := differences({name: settings_of_run(folder) for name, folder in folders.items()}):
        page.table("Settings that differ", changed, ["setting", *names], folded=len(changed) > 8)
    compare_runs(
        page,
        {name: e.evaluation for name, e in seen.items()},
        paired={name: reason for name, reason in reasons.items() if reason},
        n_boot=n_boot,
        seed=seed,
    )
    together: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, folder in folders.items():
        for title, lines in curves(folder).items():
            together.setdefault(title, {}).update({f"{name}: {column}": line for column, line in lines.items()})
    if together:
        page.section("Training")
        for title, lines in together.items():
            page.curves(title, lines)
    page.section("Embedding maps")
    for name, e in seen.items():
        add_map(page, e.encoded, name)
    if any(m.picture is not None for m in vertical.modalities):
        for name, e in seen.items():
            add_gallery(page, vertical, e.encoded, examples, seed, name)
    page.section("Collapse monitors")
    for name, e in seen.items():
        for what, result in e.evaluation.results.items():
            if isinstance(result, LabelFree):
                page.monitors(f"{name}, {what}", result)
    page.section("Configuration")
    for name, folder in folders.items():
        if (folder / "config.yaml").is_file():
            page.config(f"{name}: config.yaml", (folder / "config.yaml").read_text(encoding="utf-8"))


def settings_of_run(folder: Path) -> dict[str, Any]:
    """A run's configuration with dotted names."""
    file = folder / "config.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    flat: dict[str, Any] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}".removeprefix("config.")] = value

    walk(content or {}, "")
    return flat


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Rows (setting, its value in each run) of the settings that are not the same everywhere.

    >>> differences({"a": {"lr": 1, "seed": 0}, "b": {"lr": 2, "seed": 0}})
    [['lr', '1', '2']]
    """
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    rows = [[key, *(str(config[key]) if key in config else "" for config in configs.values())] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]
