"""Molecules of a manifest as training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterpoint.common.data.dataset import ManifestDataset
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samples import collate as collate_fields
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.loader import Datasets
from counterpoint.graphs.configs import MoleculeDataConfig
from counterpoint.graphs.molecules.featurize import collate as join
from counterpoint.graphs.molecules.featurize import featurize


class MoleculeDataset(ManifestDataset):
    """Graphs of a manifest's molecules, featurized once. Samples hold `molecule`, `smiles`, `index`, `id`, `group`."""

    def __init__(self, manifest: Manifest, workers: int = 0):
        if "smiles" not in manifest.frame:
            columns = ", ".join(manifest.frame.columns)
            raise InputError(f"{manifest.path or 'manifest'}: has no column smiles; its columns are {columns}")
        super().__init__(manifest, featurize)
        self.smiles = manifest.frame["smiles"].astype(str).tolist()
        self.graphs = featurize(self.smiles, workers=workers)

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


def molecule_datasets(config: MoleculeDataConfig) -> Datasets:
    """The manifest's splits as datasets; without a split column everything is training data."""
    if not config.manifest:
        raise InputError("data.manifest is not set; make one with `counterpoint graphs data import molecules`")
    manifest = Manifest.load(config.manifest)
    split = manifest.frame.get("split")
    if split is None or not (split == "train").any():
        return Datasets(MoleculeDataset(manifest, config.workers))
    return datasets_of(manifest, config.workers)


def datasets_of(manifest: Manifest, workers: int = 0) -> Datasets:
    """The splits of a manifest's molecules; one that it lacks is None."""
    split = manifest.frame["split"]
    parts = {
        name: MoleculeDataset(manifest.select(split=name), workers) if (split == name).any() else None
        for name in ("train", "val", "test")
    }
    return Datasets(parts["train"], parts["val"], parts["test"])
