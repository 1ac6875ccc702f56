"""The kinds of split: by group, by time, leave-last-out, by place. Each says how it is made and what would be a leak.

The kind is recorded in `manifest.meta["split"]`, and `check_leakage` follows it: users stand in both sides of a split
by time, patients never do in one by group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from counterpoint.common.data.manifest import SPLITS, Manifest
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.suggest import no_such

Fractions = Mapping[str, float]


@dataclass(frozen=True)
class SplitRule:
    """A kind of split.

    Attributes:
        name: as `data split --kind` and `manifest.meta` say it.
        columns: how many columns `--by` names.
        make: `(manifest, columns, fractions, seed, options) -> split of every row`.
        leak: `(manifest, columns, options) -> sentence`, empty where nothing leaks.
    """

    name: str
    columns: int
    make: Callable[[Manifest, Sequence[str], Fractions, int, Mapping[str, Any]], np.ndarray]
    leak: Callable[[Manifest, Sequence[str], Mapping[str, Any]], str]


def split_by(
    manifest: Manifest,
    kind: str,
    by: Sequence[str],
    fractions: Fractions | None = None,
    seed: int = 0,
    *,
    block: float | None = None,
) -> Manifest:
    """Assign every row to a split by a rule that is not the group's; the rule is recorded in `meta`.

    - `time`: the earliest rows train, the latest test; rows of one time stay together. `by`: a column of times.
    - `leave-last-out`: of every group the last row tests, the one before it validates, the rest trains; a group of two
      rows has no validation row, one of a single row only trains. `by`: a column of times. Fractions have no say.
    - `place`: whole squares of side `block`, in the units of the two columns `by` (x,y or lat,lon), drawn at random.

    >>> table = Manifest.from_rows([{"id": str(i), "group": str(i % 2), "day": i} for i in range(6)])
    >>> split_by(table, "leave-last-out", ["day"]).frame.split.tolist()
    ['train', 'train', 'val', 'val', 'test', 'test']
    >>> split_by(table, "time", ["day"], {"train": 0.5, "test": 0.5}).frame.split.tolist()
    ['train', 'train', 'train', 'test', 'test', 'test']
    """
    from counterpoint.common.data.splits import checked_fractions, split_hash

    rule = rule_named(kind)
    if len(by) != rule.columns:
        asked = "one column of times" if rule.columns == 1 else "two columns, as in --by lat,lon"
        raise InputError(f"a split by {kind} needs {asked} (--by), got {', '.join(by) or 'none'}")
    for name in by:
        if name not in manifest.frame:
            raise no_such("column", name, manifest.frame.columns)
    fractions = checked_fractions(fractions)
    options = {} if block is None else {"block": block}
    names = rule.make(manifest, by, fractions, seed, options)
    result = replace(manifest, frame=manifest.frame.assign(split=names))
    said = {"kind": kind, "by": list(by), "fractions": fractions, "seed": seed, **options}
    return replace(result, meta={**manifest.meta, "split": said, "split_hash": split_hash(result)})


def rule_named(kind: str) -> SplitRule:
    """The rule of a name; raises `InputError` with the names there are."""
    if kind not in RULES:
        raise no_such("kind of split", kind, ("group", *RULES))
    return RULES[kind]


def keeps_groups_apart(manifest: Manifest | None) -> bool:
    """Whether a group in two splits of this manifest would be a leak: so unless it was split by time or place."""
    return manifest is None or split_kind(manifest) == "group"


def split_kind(manifest: Manifest) -> str:
    """The rule that a manifest was split by; an importer may have recorded words of its own (`scaffold`), which keep
    groups apart."""
    said = manifest.meta.get("split")
    return str(said.get("kind", "group")) if isinstance(said, Mapping) else "group"


def leak_of(manifest: Manifest) -> str | None:
    """What leaks under the rule that the manifest was split by; None where groups decide (see `check_leakage`)."""
    kind = split_kind(manifest)
    if kind == "group":
        return None
    said = manifest.meta["split"]
    columns = [str(name) for name in said.get("by", ())]
    for name in columns:
        if name not in manifest.frame:
            raise InputError(f"the manifest was split by {kind} along the column {name!r}, which it no longer has")
    return rule_named(kind).leak(manifest, columns, said)


def times_of(manifest: Manifest, column: str) -> np.ndarray:
    """A column of times as numbers that grow: numbers as they are, dates and clock times in seconds since 1970.

    Raises `InputError` naming the first row without a readable time.
    """
    values = manifest.frame[column]
    found = pd.to_numeric(values, errors="coerce")
    if found.isna().mean() > 0.5:
        read = pd.to_datetime(values.astype(str), errors="coerce", utc=True, format="ISO8601")
        found = (read - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    bad = ~np.isfinite(found.to_numpy(dtype=float))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"row {row + 1}: {column} is {str(values.iloc[row])[:40]!r}; a split by time needs a number or a date such "
            "as 2024-05-31 or 2024-05-31T12:00:00 in every row"
        )
    return found.to_numpy(dtype=float)


def _by_time(
    manifest: Manifest, by: Sequence[str], fractions: Fractions, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    moments = times_of(manifest, by[0])
    names = [name for name in SPLITS if fractions.get(name)]
    unique, counts = np.unique(moments, return_counts=True)
    if len(unique) < len(names):
        raise InputError(f"{by[0]} has {len(unique)} different time(s), too few for {len(names)} splits")
    middle = counts.cumsum() - counts / 2
    cuts = np.cumsum([fractions[name] for name in names])[:-1] * counts.sum()
    starts = [int(i) for i in np.searchsorted(middle, cuts)]
    for i in range(len(starts)):  # every split gets a time of its own
        starts[i] = max(starts[i], 1 + (starts[i - 1] if i else 0))
    for i in reversed(range(len(starts))):
        starts[i] = min(starts[i], (starts[i + 1] if i + 1 < len(starts) else len(unique)) - 1)
    return np.array(names, dtype=object)[np.searchsorted(starts, np.searchsorted(unique, moments), side="right")]


def _time_leak(manifest: Manifest, by: Sequence[str], options: Mapping[str, Any]) -> str:
    used = manifest.frame["split"].to_numpy()
    moments = times_of(manifest, by[0])
    for i, earlier in enumerate(SPLITS):
        for later in SPLITS[i + 1 :]:
            first, second = np.flatnonzero(used == earlier), np.flatnonzero(used == later)
            if len(first) and len(second) and moments[first].max() >= moments[second].min():
                a, b = first[moments[first].argmax()], second[moments[second].argmin()]
                return (
                    f"row {a + 1} of {earlier} is not earlier than row {b + 1} of {later} ({by[0]} "
                    f"{manifest.frame[by[0]].iloc[a]} and {manifest.frame[by[0]].iloc[b]})"
                )
    return ""


def _last_out(
    manifest: Manifest, by: Sequence[str], fractions: Fractions, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    frame = pd.DataFrame(
        {"group": manifest.frame["group"].to_numpy(), "time": times_of(manifest, by[0]), "id": manifest.frame["id"]}
    ).reset_index(drop=True)
    ordered = frame.sort_values(["group", "time", "id"])  # the order of the rows has no say
    behind = ordered.groupby("group").cumcount(ascending=False)
    size = ordered.groupby("group")["id"].transform("size")
    names = np.where((behind == 0) & (size > 1), "test", np.where((behind == 1) & (size > 2), "val", "train"))
    result = np.empty(len(frame), dtype=object)
    result[ordered.index.to_numpy()] = names
    return result


def _last_out_leak(manifest: Manifest, by: Sequence[str], options: Mapping[str, Any]) -> str:
    frame = manifest.frame[["id", "group", "split"]].assign(time=times_of(manifest, by[0]))
    frame = frame[frame["split"] != ""].assign(place=lambda f: f["split"].map(SPLITS.index))
    ordered = frame.sort_values(["group", "time", "place"])
    falls = ordered.groupby("group")["place"].diff() < 0
    if falls.any():
        row = ordered[falls].iloc[0]
        return (
            f"group {row['group']!r}: sample {row['id']!r} of {row['split']} comes after one of a later split ({by[0]})"
        )
    held = ordered[ordered["split"] != "train"].groupby(["group", "split"]).size()
    if (held > 1).any():
        group, side = held.index[held > 1][0]
        return f"group {group!r} has {held.max()} rows in {side}, where leave-last-out leaves one"
    return ""


def _blocks(manifest: Manifest, by: Sequence[str], options: Mapping[str, Any]) -> np.ndarray:
    """The square of every row, as a name."""
    side = options.get("block")
    if not isinstance(side, int | float) or not math.isfinite(side) or side <= 0:
        raise InputError(f"a split by place needs the side of its squares (--block), a number above 0, not {side}")
    codes = []
    for name in by:
        values = pd.to_numeric(manifest.frame[name], errors="coerce").to_numpy(dtype=float)
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            raise InputError(f"row {row + 1}: {name} is {manifest.frame[name].iloc[row]!r}; give a number in every row")
        codes.append(np.floor(values / side).astype(np.int64))
    return np.array([f"{x} {y}" for x, y in zip(*codes)])


def _by_place(
    manifest: Manifest, by: Sequence[str], fractions: Fractions, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    from counterpoint.common.data.splits import split_by_group

    squares = _blocks(manifest, by, options)
    found = len(np.unique(squares))
    if found < len(fractions):
        raise InputError(f"there are {found} squares of side {options['block']:g}; choose a smaller --block")
    by_square = split_by_group(replace(manifest, frame=manifest.frame.assign(group=squares)), fractions, seed)
    return by_square.frame["split"].to_numpy()


def _place_leak(manifest: Manifest, by: Sequence[str], options: Mapping[str, Any]) -> str:
    frame = pd.DataFrame({"square": _blocks(manifest, by, options), "split": manifest.frame["split"].to_numpy()})
    frame = frame[frame["split"] != ""]
    sides = frame.groupby("square")["split"].nunique()
    if not (sides > 1).any():
        return ""
    rows = frame[frame["square"] == sides.index[sides > 1][0]].groupby("split").head(1)
    (a, one), (b, other) = list(rows["split"].items())[:2]
    return (
        f"rows {a + 1} ({one}) and {b + 1} ({other}) lie in one square of side {options['block']:g} ({', '.join(by)})"
    )


RULES: dict[str, SplitRule] = {
    rule.name: rule
    for rule in (
        SplitRule("time", 1, _by_time, _time_leak),
        SplitRule("leave-last-out", 1, _last_out, _last_out_leak),
        SplitRule("place", 2, _by_place, _place_leak),
    )
}


def refuse_leak(said: str, kind: str) -> None:
    """Raise `LeakageError` with a sentence, if there is one."""
    if said:
        raise LeakageError(f"{said}; this manifest was split by {kind}: split it again (data split --kind {kind})")
