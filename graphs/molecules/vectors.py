"""From SMILES to the vectors of a trained system."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.trainers import ContrastiveSystem
from counterpoint.graphs.molecules.featurize import featurize, join_molecules


def encoder_of(
    system: ContrastiveSystem, modality: str = "molecule", batch_size: int = 256
) -> Callable[[Sequence[str]], Float[Tensor, "n dim"]]:
    """A function from SMILES to unit vectors, for search; the same list is encoded once."""
    return _remembering(system, system.encode, modality, batch_size)


def features_of(
    system: ContrastiveSystem, modality: str = "molecule", batch_size: int = 256
) -> Callable[[Sequence[str]], Float[Tensor, "n dim"]]:
    """A function from SMILES to the vectors that probes and heads read; the same list is encoded once."""
    return _remembering(system, system.features, modality, batch_size)


def _remembering(system: ContrastiveSystem, encoder: Callable, modality: str, batch_size: int) -> Callable:
    known: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def encode(smiles: Sequence[str]) -> Float[Tensor, "n dim"]:
        key = tuple(smiles)
        if key not in known:
            system.eval()
            graphs = featurize(key)
            parts = [join_molecules(graphs[i : i + batch_size]) for i in range(0, len(graphs), batch_size)]
            known[key] = torch.cat([encoder({"molecule": part})[modality] for part in parts])
        return known[key]

    return encode
