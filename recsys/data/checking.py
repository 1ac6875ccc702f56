"""`data check` and `data split` of a data set's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoint.common.data import Manifest
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome
from counterpoint.recsys.configs import InteractionsConfig
from counterpoint.recsys.data.build import save_dataset
from counterpoint.recsys.data.folder import SPLIT, InteractionData, open_dataset, prepared
from counterpoint.recsys.data.splits import check_split


def check_dataset(manifest: Path) -> Outcome:
    """Read everything; the first thing that cannot be used is an error, what cannot be read of the features a line."""
    data = open_dataset(manifest)
    bad = []
    for name in data.features:
        try:
            data.feature(name)
        except InputError as error:
            bad.append({"feature": name, "reason": str(error)})
    log = data.log
    figures: dict[str, Any] = {
        "users": len(log.users), "items": len(log.items), "interactions": len(log), **data.fingerprint,
        "left_out_by_the_import": data.manifest.meta.get("rejected", 0) if data.manifest else 0, "bad": bad,
    }  # fmt: skip
    lines = [f"{len(log):,} interactions of {len(log.users):,} users with {len(log.items):,} items; {_filled(data)}"]
    lines += [f"fingerprint {figures['data']}"]
    if log.split is not None:
        check_split(log, data.split)
        counts = {name: int((log.split == place).sum()) for place, name in enumerate(SPLITS)}
        figures["splits"] = counts
        lines.append(f"split ({data.split}): " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
    else:
        lines.append("not split: trainings split it at random, or as --data.split says")
    new = int((log.item_counts == 0).sum())
    lines += [f"{new} items were met by nobody"] if new else []
    lines += [f"features {b['feature']}: {b['reason']}" for b in bad]
    failed = f"{manifest}: {len(bad)} of {len(data.features)} item features cannot be used" if bad else ""
    return Outcome(figures, tuple(lines), failed=failed)


def _filled(data: InteractionData) -> str:
    cells = len(data.log.users) * len(data.log.items)
    return f"{100 * len(data.log) / max(cells, 1):.3g} % of the cells"


def split_dataset(
    manifest: Path, kind: str, fractions: Sequence[float], seed: int, core: int, out: Path | None
) -> Outcome:
    """Write the data set with a split."""
    train, val, test = fractions
    config = InteractionsConfig(core=core, split=kind, fractions=(train, val, test), split_seed=seed)
    data = prepared(replace(open_dataset(manifest), split=""), config)
    target = out or manifest.parent.with_name(f"{manifest.parent.name}-split")
    if target.resolve() == manifest.parent.resolve():
        raise InputError(f"{target}: the data set is there already; give another --out")
    said = {"kind": kind, "fractions": list(fractions), "seed": seed, "core": core}
    known = {k: v for k, v in (data.manifest or Manifest.load(manifest)).meta.items() if k in ("synthetic", "rejected")}
    features = {name: data.feature(name) for name in data.features}
    path = save_dataset(target, data.log, data.users, data.items, features, {**known, SPLIT: said})
    counts = {name: int((data.log.split == place).sum()) for place, name in enumerate(SPLITS)}
    users = {name: int((data.log.of(name).user_counts > 0).sum()) for name in SPLITS}
    figures = {"splits": {n: {"interactions": counts[n], "users": users[n]} for n in SPLITS}, **data.fingerprint}
    lines = [f"{n:5}  {counts[n]:>10} interactions  {users[n]:>8} users" for n in SPLITS]
    return Outcome(figures, (*lines, f"fingerprint {data.fingerprint['split']}", f"wrote {path}"), {"manifest": path})
