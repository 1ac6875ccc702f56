"""A run's checkpoint applied to one split of its data: what `evaluate`, `embed`, `search` and `report` start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from counterpoint.common.data import Samples
from counterpoint.common.data.copies import check_copies, copies_within
from counterpoint.common.data.encoding import EncodedRows, encode_rows
from counterpoint.common.data.links import Links
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.samples import answers
from counterpoint.common.data.split_rules import keeps_groups_apart
from counterpoint.common.discover import vertical_of
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import Datasets, FinetuneSystem, load_run, load_yaml, override
from counterpoint.common.trainers.environment import TRAINING, hashed
from counterpoint.common.trainers.leakage import hold_to_split, manifest_of
from counterpoint.common.vertical import SystemEntry, Vertical

FINETUNED = f"{FinetuneSystem.__module__}:{FinetuneSystem.__qualname__}"


class NoSplit(InputError):
    """The run's data have no split of the name that was asked for."""


@dataclass(frozen=True)
class Encoded:
    """Embeddings of one split, row i of every modality in `vectors` belonging to `ids[i]`.

    Attributes:
        system: the trained system, in evaluation mode.
        dataset: the split.
        positions: places of the rows in `dataset` (unreadable samples have none).
        vectors: modality -> [n, dim].
        ids, groups: of each row.
        labels: of each row, where a label field was asked for (and is a column of a pool's own).
        left_out: unreadable samples as (id, reason).
        label: the label field that was asked for.
        pools: the modalities that are embedded from samples of their own, each with rows, ids and groups of its own.
    """

    system: Any
    dataset: Samples
    positions: list[int]
    vectors: dict[str, Tensor]
    ids: list[str]
    groups: list[str]
    labels: Any
    left_out: list[tuple[str, str]]
    label: str | None = None
    pools: dict[str, Encoded] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> list[str]:
        """All modalities, those with rows of their own last."""
        return [*self.vectors, *(name for name, pool in self.pools.items() if name in pool.vectors)]

    def part(self, modality: str) -> Encoded:
        """Where the rows of a modality are."""
        return self.pools.get(modality, self)

    def of(self, modality: str) -> Tensor:
        """The embeddings of any modality."""
        return self.part(modality).vectors[modality]

    def links(self, query: str, key: str, what: Literal["relevant", "exclude"] = "relevant") -> Links | None:
        """`relevant` or `exclude` of the data set between the rows encoded; None where row i belongs to row i (or
        nothing is excluded)."""
        found = answers(self.dataset, query, key, what)
        return None if found is None else found.take(self.part(query).positions, self.part(key).positions)

    @property
    def synthetic(self) -> str:
        """What of the data a generator made; empty where all of them were measured."""
        return self.dataset.synthetic

    def sample(self, row: int) -> dict[str, Any]:
        """The sample behind a row of the embeddings."""
        return self.dataset[self.positions[row]]


def open_data(
    run: Path, checkpoint: str, split: str, manifest: Path | None = None, settings: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Samples]]:
    """(system, samples of every split that there is) of a run; `manifest` replaces the data it was trained on, and
    `settings` those of its configuration by their dotted names.

    `NoSplit` where the data lack `split`.
    """
    if split not in SPLITS:  # before anything is loaded
        raise no_such("split", split, SPLITS)
    system = load_run(run, checkpoint)
    if manifest is not None:
        if not hasattr(getattr(system.config, "data", None), "manifest"):
            raise InputError(f"--manifest: the data of {type(system).__name__} do not come from a manifest")
        system.config = override(system.config, {"data.manifest": str(manifest)})
    if settings:
        system.config = override(system.config, settings)
    system.stage = list(system.stages())[-1]
    found = present(system.evaluation_datasets())
    if split not in found:
        place = manifest or getattr(getattr(system.config, "data", None), "manifest", "") or run
        raise NoSplit(f"{place}: {no_such('split', split, found)}")
    return system, found


def present(datasets: Datasets) -> dict[str, Samples]:
    """The splits that there are, by name."""
    return {name: getattr(datasets, name) for name in SPLITS if getattr(datasets, name) is not None}


def open_split(run: Path, checkpoint: str, split: str, manifest: Path | None = None) -> tuple[Any, Samples]:
    """(system, samples of one split) of a run."""
    system, found = open_data(run, checkpoint, split, manifest)
    return system, found[split]


def check_apart(system: Any) -> None:
    """Raise `LeakageError` where the splits of the system's manifest are not apart: by its rule, or because a file of
    one of them stands in another one under another name."""
    if (manifest := manifest_of(system)) is not None:
        hold_to_split(manifest)
        check_copies(manifest)


def copied(system: Any, split: str) -> str:
    """In words: how many rows of a split are exact copies of other rows of it; empty where none is known to be."""
    manifest = manifest_of(system)
    copies = [] if manifest is None else copies_within(manifest, split)
    if not copies:
        return ""
    (one, other, *_), number = copies[0], sum(len(rows) - 1 for rows in copies)
    return (
        f"{number} rows of {split} are exact copies of others of them under other ids (first: {other!r} of {one!r}): "
        "each is its twin's nearest neighbour, and both count; drop the copies"
    )


def trained_on(run: Path, encoded: Encoded) -> str:
    """In words: how many of the encoded samples, or their groups, were among the encoder's own training samples.

    Groups are left out where the manifest was split by time or place: there they stand on both sides by intent.
    """
    file = run / TRAINING
    if not file.is_file():
        return ""
    known = json.loads(file.read_text(encoding="utf-8"))
    ids, groups = ({h for stage in known.values() for h in stage[what]} for what in ("ids", "groups"))
    samples = sum(hashed(name) in ids for name in encoded.ids)
    mine = set(encoded.groups)
    shared = sum(hashed(name) in groups for name in mine) if keeps_groups_apart(manifest_of(encoded.system)) else 0
    if not samples and not shared:
        return ""
    return (
        f"the encoder was trained on data scored here: {samples} of {len(encoded)} samples and {shared} of {len(mine)} "
        "groups carry names of its training split; these figures are not those of unseen data"
    )


def encode_part(
    system: Any,
    dataset: Samples,
    rows: Sequence[int],
    batch_size: int = 128,
    label: str | None = None,
    change: Callable[[dict, list[int]], dict] | None = None,
) -> Encoded:
    """Encode some rows of a dataset; unreadable ones are left out and listed, as are those it was made without.
    `change` is applied to every batch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    system = system.to(device).eval()
    options = {"batch_size": batch_size, "change": change, "progress": "encoding"}
    found = encode_rows(system, dataset, rows, facts=() if label is None else (label,), **options)
    pools = {}
    for modality, pool in dataset.pools.items():
        alone, known = partial(system.encode, modality=modality), label if label in pool.columns else None
        told = encode_rows(system, pool, what=alone, facts=() if known is None else (known,), **options)
        pools[modality] = _encoded(system, pool, told, known)
    return replace(_encoded(system, dataset, found, label), pools=pools)


def _encoded(system: Any, dataset: Samples, found: EncodedRows, label: str | None = None) -> Encoded:
    labels = _stack(found.facts.get(label, []))
    left_out = [*((bad.id, bad.reason) for bad in dataset.left_out), *found.left_out]
    rows = (found.positions, found.vectors, found.ids, found.groups, labels, left_out)
    return Encoded(system, dataset, *rows, label)


def modality_pairs(encoded: Encoded) -> Iterator[tuple[str, str]]:
    """Every two modalities whose embeddings can be compared."""
    names = encoded.modalities
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if encoded.of(a).shape[1:] == encoded.of(b).shape[1:]:
                yield a, b


def vertical_of_run(run: Path) -> Vertical:
    """The installed vertical that a run's system belongs to."""
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: not a run folder (no config.yaml in it)")
    record = load_yaml(run / "config.yaml")
    system = str(record.get("system"))
    if system != FINETUNED:
        return vertical_of(system)
    base = (record.get("config") or {}).get("base") or {}  # what the head stands on
    return vertical_of(system, str(base.get("system")))


def entry_of(vertical: Vertical, system: Any) -> SystemEntry | None:
    """The vertical's entry of a loaded system."""
    name = f"{type(system).__module__}:{type(system).__qualname__}"
    return next((entry for entry in vertical.systems if entry.system == name), None)


def _stack(labels: list) -> Any:
    """Labels as `metrics.evaluate` takes them: a list of classes or numbers, or a matrix of several labels per row."""
    if not labels:
        return None
    return torch.tensor(labels) if isinstance(labels[0], list) else labels
