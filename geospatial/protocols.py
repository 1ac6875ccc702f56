"""What an Earth-observation team asks of an encoder, as protocols of `evaluate`.

All are scored on places that neither encoder nor probe has seen; intervals draw whole places.

- land cover: a linear decoder from each patch's features to its pixels, fitted in closed form, beside a random forest
  on the spectra of single pixels, which has no encoder at all.
- the same decoder on chips of twice and of four times the side, beside the same ground in chips of the trained size.
- retrieval between radar and optical pictures where the pool is the chips of one place: all are alike, and only what
  both sensors see of the ground tells them apart.
- change: the distance between a place's embeddings at its first and its last time, against a map of known changes.
- label efficiency by places for every representation, `joint` among them, so that each sensor alone stands beside both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data import Manifest
from counterpoint.common.data.encoding import encode_rows, encoded_batches
from counterpoint.common.data.samples import BadSample
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.fewshot import label_efficiency
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.metrics.retrieval import retrieval
from counterpoint.common.metrics.segmentation import score_dense
from counterpoint.common.progress import note
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers.config_files import from_dict, load_yaml
from counterpoint.common.trainers.run_folder import CONFIG
from counterpoint.geospatial.base import scenes_of, with_splits
from counterpoint.geospatial.change import change_scores
from counterpoint.geospatial.configs import RasterConfig
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.data.legend import class_name
from counterpoint.geospatial.data.splits import boxes_of
from counterpoint.geospatial.decoder import PatchDecoder, confusion_of

FOREST_PIXELS = 20_000
WIDER = {
    2: ("chips of twice the side", "the same ground at the trained side"),
    4: ("chips of four times the side", "the ground of four times the side at the trained side"),
}
"""Sides beyond the trained one, in its multiples, and the names of their figures: wide chips, and the same ground cut
as trained."""
FRACTIONS = (0.01, 0.1, 1.0)
TOUCH = 0.01
"""Share of a ground's side up to which an overlap is the rounding of one CRS in another, as in `places_of`."""


def protocols(run: OpenRun) -> dict[str, Result]:
    """All of them that the data allow."""
    found: dict[str, Result] = {}
    found |= within_places(run)
    found |= by_label_share(run)
    found |= score_land_cover(run)
    found |= change_scores(run)
    return found


def run_chips(run: OpenRun, split: str | None = None) -> Chips | None:
    """The chips of a split; None where it is made of something else or is not there."""
    name = split or run.split
    samples = run.data.get(name)
    return samples if isinstance(samples, Chips) else None


def within_places(run: OpenRun) -> dict[str, Result]:
    """Radar and optical chips find one another among the chips of their own place."""
    encoded = run.encoded()
    if not {"s1", "s2"} <= set(encoded.vectors):
        return {}
    groups = np.asarray(encoded.groups)
    sizes = {g: int((groups == g).sum()) for g in set(groups.tolist())}
    several = np.array([sizes[g] > 1 for g in groups.tolist()])
    name = "retrieval within a place"
    if several.sum() < 2:
        return {name: NotRun("no place has two chips")}
    rows = torch.from_numpy(np.flatnonzero(several))
    groups = groups[several]
    other = torch.from_numpy(groups[:, None] != groups[None])
    vectors = {s: encoded.vectors[s][rows] for s in ("s1", "s2")}
    both = retrieval(
        vectors["s1"], vectors["s2"], exclude=other, ks=(1,), groups=groups.tolist(), names=("s1", "s2"),
        n_boot=run.n_boot, seed=run.seed,
    )  # fmt: skip
    return {f"{name} {side.name}": side for side in (both.a_to_b, both.b_to_a)}


def by_label_share(run: OpenRun) -> dict[str, Result]:
    """Probes of every representation with the labels of 1, 10 and 100 % of the places."""
    train, test = run_chips(run, "train"), run_chips(run)
    label = run.label or "label"
    if train is None or test is None or any(label not in c.columns for c in (train, test)):
        return {}
    known, asked = run.features("train"), run.features()
    values = [[c.column(label)[p] for p in f.positions] for c, f in ((train, known), (test, asked))]
    if any(isinstance(v, float) for v in [*values[0], *values[1]]):
        return {}
    if len({v for v in values[0] if v is not None}) < 2:
        return {"label share": NotRun(f"the training chips hold fewer than two classes of {label}")}
    found: dict[str, Result] = {}
    for name, vectors in asked.vectors.items():
        if name in known.vectors:
            found[f"{label} by share of places, {name}"] = label_efficiency(
                known.vectors[name], values[0], vectors, values[1], fractions=FRACTIONS, seeds=(0, 1, 2),
                metric="balanced_accuracy", train_groups=known.groups,
            )  # fmt: skip
    return found


def score_land_cover(run: OpenRun) -> dict[str, Result]:
    """The linear decoder of each representation, at the trained side and at multiples of it, and the pixels' forest."""
    train, test = run_chips(run, "train"), run_chips(run)
    system = getattr(run.system, "pretrained", run.system)
    if train is None or test is None or not (train.has_landcover and test.has_landcover):
        return {}
    if not hasattr(system, "patch_size"):
        return {"land cover": NotRun(f"{type(system).__name__} has no features per place")}
    classes = class_codes(train, run.limit)
    if len(classes) < 2:
        return {"land cover": NotRun("the training chips hold one class of land cover")}
    names = tuple(class_name(code, train.legend) for code in classes)
    found: dict[str, Result] = {}
    decoders = fit_decoders(run, train, classes, system.patch_size)
    options = {"n_boot": run.n_boot, "seed": run.seed}
    sets: list[tuple[str, Chips | None]] = [("", test)]
    for times, (large, same) in WIDER.items():
        whole = wider(test, times)
        if whole is not None:
            sets += [(f", {large}", whole), (f", {same}", parted(whole, times))]
    for suffix, chips in sets:
        for name, (confusions, groups) in decoded(run, decoders, chips, classes).items():
            found[f"land cover from {name}{suffix}"] = score_dense(confusions, names, groups=groups, **options)
    confusions, groups = forest(train, test, classes, run)
    found["land cover by pixels (random forest)"] = score_dense(confusions, names, groups=groups, **options)
    return found


def own_figures(
    run: OpenRun, chips: Chips, what: Callable[[Mapping[str, Any]], Mapping[str, Tensor]], known: Sequence[Manifest]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(figures of every chip by name, groups): what a function of the batch says of the chips on places apart from the
    training places of `known`, each chip once. Unreadable chips are left out and told.

    Raises:
        InputError: every place was trained on.
    """
    away = apart(chips, known)
    wanted = [p for p in range(len(chips) if run.limit is None else min(run.limit, len(chips))) if away[p]]
    if not wanted:
        raise InputError("every place of the split was trained on; name others (--split test, --manifest)")
    found = encode_rows(
        run.system, chips, wanted, what=what, batch_size=min(run.batch_size, 64), seed=run.seed, progress="land cover"
    )
    if not found.positions:
        raise InputError(f"no chip of {run.split} could be read; the first: {found.left_out[0][1]}")
    if found.left_out:
        name, reason = found.left_out[0]
        note(f"{len(found.left_out)} unreadable samples are left out; the first: {name}: {reason}")
    return {name: x.numpy() for name, x in found.vectors.items()}, np.asarray(found.groups)


def training_tables(run: OpenRun, more: Sequence[str] = ()) -> list[Manifest]:
    """The manifests that hold the training places of a run's system, whatever it is evaluated on, and those of the run
    folders `more`."""
    system = run.system
    own = [] if system.run_dir is None or system.given else [system.run_dir]
    folders = [*own, *map(Path, more)]
    data = [load_yaml(folder / CONFIG)["config"]["data"] for folder in folders]
    return [*(scenes_of(from_dict(RasterConfig, said)) for said in data), *([] if own else [system.data])]


def apart(chips: Chips, known: Sequence[Manifest]) -> np.ndarray:
    """[chips] which chips lie on rows whose ground overlaps with none of the training rows of `known`, by their bounds
    in degrees; grounds that touch do not overlap."""
    away = np.ones(len(chips.rows), bool)
    boxes = boxes_of(chips.manifest)
    for table in known:
        table = with_splits(table)
        trained = boxes_of(table)[(table.frame["split"] == "train").to_numpy()]
        for i, (west, south, east, north) in enumerate(boxes):
            wide = np.minimum(trained[:, 2], east) - np.maximum(trained[:, 0], west) > TOUCH * (east - west)
            high = np.minimum(trained[:, 3], north) - np.maximum(trained[:, 1], south) > TOUCH * (north - south)
            away[i] &= not bool((wide & high).any())
    return away[chips.places[:, 0]]


def class_codes(chips: Chips, limit: int | None = None) -> list[int]:
    """The codes of land cover in the chips."""
    seen: set[int] = set()
    for i in range(len(chips) if limit is None else min(limit, len(chips))):
        codes = chips.landcover(i)
        seen |= set() if codes is None else set(np.unique(codes).tolist())
    return sorted(seen - {-1})


def numbered(codes: Tensor, classes: list[int]) -> Tensor:
    """Codes as places in `classes`; -1 for others."""
    table = torch.full((max(classes) + 2,), -1)
    table[torch.tensor(classes)] = torch.arange(len(classes))
    inside = (codes >= 0) & (codes <= max(classes))
    return torch.where(inside, table[codes.clamp(0, max(classes) + 1)], -1)


def dense_batches(run: OpenRun, chips: Chips) -> Iterator[tuple[dict[str, Tensor], Tensor, list[str]]]:
    """(dense features, codes of land cover, groups) batch by batch."""
    count = len(chips) if run.limit is None else min(run.limit, len(chips))
    system = getattr(run.system, "pretrained", run.system)
    for part in encoded_batches(system, chips, range(count), what="dense", batch_size=min(run.batch_size, 64)):
        if part.positions:
            codes = torch.stack([torch.from_numpy(chips.landcover(p)) for p in part.positions])
            yield part.vectors, codes, part.groups


def fit_decoders(run: OpenRun, train: Chips, classes: list[int], patch: int) -> dict[str, PatchDecoder]:
    """A linear decoder a representation."""
    found: dict[str, PatchDecoder] = {}
    for vectors, codes, _ in dense_batches(run, train):
        target = numbered(codes, classes)
        for name, x in vectors.items():
            decoder = found.setdefault(name, PatchDecoder(x.shape[-1], len(classes), patch))
            decoder.see(x, target)
    for decoder in found.values():
        decoder.fit()
    return found


def decoded(
    run: OpenRun, decoders: Mapping[str, PatchDecoder], chips: Chips, classes: list[int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(a confusion matrix a chip, its group) of every representation."""
    tables: dict[str, list[np.ndarray]] = {name: [] for name in decoders}
    groups: list[str] = []
    for vectors, codes, names in dense_batches(run, chips):
        target = numbered(codes, classes)
        groups += names
        for name in decoders:
            if name in vectors:
                tables[name].append(confusion_of(decoders[name].predict(vectors[name]), target, len(classes)))
    return {name: (np.concatenate(t), np.asarray(groups)) for name, t in tables.items() if t}


def wider(chips: Chips, times: int = 2) -> Chips | None:
    """The places in chips of so many times the side; None where no place is large enough."""
    cut = replace(chips.cut, size=times * chips.cut.size, step=times * chips.cut.size)
    try:
        return Chips(chips.manifest, cut, chips.form, chips.on_error, chips.max_bad)
    except InputError:
        return None


def parted(chips: Chips, times: int = 2) -> Chips:
    """The ground of wide chips in `times` x `times` chips each."""
    size = chips.cut.size // times
    cut = replace(chips.cut, size=size, step=size, min_valid=0.0)
    made = Chips(chips.manifest, cut, chips.form, chips.on_error, chips.max_bad)
    steps = range(0, times * size, size)
    made.places = np.array([(i, r + dr, c + dc) for i, r, c in chips.places.tolist() for dr in steps for dc in steps])
    made.__dict__.pop("ids", None)
    return made


def forest(train: Chips, test: Chips, classes: list[int], run: OpenRun) -> tuple[np.ndarray, np.ndarray]:
    """A random forest on the bands of single pixels of all sensors: (a confusion matrix a chip, its group)."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(run.seed)
    limit = run.limit or 10**9
    each = max(1, FOREST_PIXELS // min(len(train), limit))
    x, y = [], []
    for _, pixels, target in _spectra(train, limit, classes):
        known = np.flatnonzero(target >= 0)
        chosen = rng.permutation(known)[:each]
        x.append(pixels[chosen])
        y.append(target[chosen])
    model = RandomForestClassifier(40, min_samples_leaf=5, n_jobs=1, random_state=run.seed)
    model.fit(np.concatenate(x), np.concatenate(y))
    tables, groups = [], []
    for i, pixels, target in _spectra(test, limit, classes):
        said = model.predict(pixels)
        known = target >= 0
        flat = target[known] * len(classes) + said[known]
        tables.append(np.bincount(flat, minlength=len(classes) ** 2).reshape(len(classes), -1))
        groups.append(test.groups[i])
    return np.stack(tables), np.asarray(groups)


def _spectra(chips: Chips, limit: int, classes: list[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(position, [pixels, bands], class numbers) of every chip that can be read, as a system is given it; the number is
    -1 where a sensor has no data."""
    for i in range(min(len(chips), limit)):
        sample = chips[i]
        if isinstance(sample, BadSample):
            continue
        batch: dict[str, Any] = chips.collate([sample])
        sensors = list(chips.cut.bands)
        x = torch.cat([batch[s][0] for s in sensors]).flatten(1).T.numpy()
        seen = torch.stack([batch[f"{s}_valid"][0] for s in sensors]).all(0).flatten()
        target = numbered(batch["landcover"][0], classes).flatten()
        yield i, x, torch.where(seen, target, -1).numpy()
