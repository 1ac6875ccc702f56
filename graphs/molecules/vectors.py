"""From SMILES to the vectors of a trained system."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.trainers import ContrastiveSystem
from counterpoint.graphs.molecules.data import collate_molecules
from counterpoint.graphs.molecules.featurize import featurize


def encoder_of(
    system: ContrastiveSystem, modality: str = "molecule", batch_size: int = 256
) -> Callable[[Sequence[str]], Float[Tensor, "n dim"]]:
    """A function from SMILES to vectors; the same list is encoded once."""
    known: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def encode(smiles: Sequence[str]) -> Float[Tensor, "n dim"]:
        key = tuple(smiles)
        if key not in known:
            system.eval()
            samples = [{"molecule": g, "smiles": s} for g, s in zip(featurize(key), key, strict=True)]
            parts = [
                system.encode(collate_molecules(samples[i : i + batch_size]), modality)[modality]
                for i in range(0, len(samples), batch_size)
            ]
            known[key] = torch.cat(parts)
        return known[key]

    return encode
