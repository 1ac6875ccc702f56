"""Molecules of a manifest as training samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from counterpoint.common.data.dataset import ManifestDataset
from counterpoint.common.data.left_out import leave_out
from counterpoint.common.data.manifest import SPLITS, Manifest
from counterpoint.common.data.samples import BadSample
from counterpoint.common.data.samples import collate as collate_fields
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import TrainConfig
from counterpoint.common.trainers.loader import Datasets
from counterpoint.graphs.configs import MoleculeDataConfig
from counterpoint.graphs.molecules.featurize import featurize, featurize_apart
from counterpoint.graphs.molecules.featurize import join_molecules as join


class MoleculeDataset(ManifestDataset):
    """Graphs of a manifest's molecules, featurized once. Samples hold `molecule`, `smiles`, `index`, `id`, `group`.

    Molecules that RDKit cannot parse, or that end its process, are an `InputError`; with `on_error="skip"` they are
    left out, each with its reason, unless they are more than a share `max_bad`.
    """

    def __init__(self, manifest: Manifest, workers: int = 0, on_error: str = "raise", max_bad: float = 0.01):
        if "smiles" not in manifest.frame:
            columns = ", ".join(manifest.frame.columns)
            raise InputError(f"{manifest.path or 'manifest'}: has no column smiles (its columns: {columns}); "
                "make it with `data import molecules`")
        smiles = [str(s) if s and s == s else "" for s in manifest.frame["smiles"].tolist()]
        graphs, problems = featurize_apart(smiles, workers)
        frame = manifest.frame
        bad = [BadSample(int(frame.index[i]), str(frame["id"].iloc[i]), why) for i, why in problems.items()]
        leave_out(bad, len(frame), on_error, max_bad, str(manifest.path or "manifest"))
        if bad:
            manifest = replace(manifest, frame=frame.drop(index=[b.index for b in bad]))
        super().__init__(manifest, featurize, on_error, max_bad)
        self.left_out = tuple(bad)
        self.smiles = [s for i, s in enumerate(smiles) if i not in problems]
        self.graphs = [g for i, g in enumerate(graphs) if i not in problems]

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {
            "molecule": self.graphs[position],
            "smiles": self.smiles[position],
            "index": int(self.indices[position]),
            "id": self.ids[position],
            "group": self.groups[position],
        }

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return collate_molecules(samples)


def collate_molecules(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the molecules to one `MoleculeBatch`, stack the rest."""
    rest = collate_fields([{k: v for k, v in s.items() if k != "molecule"} for s in samples])
    return {**rest, "molecule": join([s["molecule"] for s in samples])}


def molecule_datasets(config: MoleculeDataConfig, train: TrainConfig) -> Datasets:
    """The manifest's splits as datasets; without a split column everything is training data."""
    if not config.manifest:
        raise InputError("--data.manifest is not set; make one with `counterpoint graphs data import molecules`")
    manifest = Manifest.load(config.manifest)
    dataset = partial(MoleculeDataset, workers=config.workers, on_error=train.on_error, max_bad=train.max_bad)
    split = manifest.frame.get("split")
    if split is None or not (split == "train").any():
        return Datasets(dataset(manifest))
    return datasets_of(manifest, dataset)


def datasets_of(manifest: Manifest, dataset: Callable[[Manifest], MoleculeDataset]) -> Datasets:
    """The splits of a manifest's molecules; one that it lacks is None."""
    split = manifest.frame["split"]
    parts = {
        name: dataset(manifest.select(split=name)) if (split == name).any() else None
        for name in SPLITS
    }
    return Datasets(parts["train"], parts["val"], parts["test"])
