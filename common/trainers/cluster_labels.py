"""The cluster labels of MLCD's first stage, from embeddings on disk, found by the samples' ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import topk_scores
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.completed import ClusteredMLCD
from counterpoint.common.losses.mlcd import cluster_labels


def cluster_facts(
    objective: ClusteredMLCD, ids: Sequence[str] | None, device: torch.device
) -> Int[Tensor, "batch nearest"]:
    """The labels of these samples. The folders are read and clustered at the first call.

    Raises `InputError` for samples that no folder holds, and folders that cannot be read or clustered.
    """
    if ids is None:
        raise InputError(
            "MLCD finds its cluster labels by the samples' ids, which the batches of this system do not say"
        )
    table = vars(objective).get("_labels")
    if table is None:
        table = _labels(objective)
        vars(objective)["_labels"] = table
    lost = [name for name in map(str, ids) if name not in table]
    if lost:
        raise InputError(
            f"MLCD: {', '.join(objective.vectors)} hold no embedding of sample {lost[0]!r}; name the folders that "
            "`embed` wrote for the splits train and val of the same data"
        )
    return torch.stack([table[str(name)] for name in ids]).to(device)


def _labels(objective: ClusteredMLCD) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    centres = None
    for place in objective.vectors:
        store = EmbeddingStore(place)
        if not store.modalities:
            raise InputError(f"{place}: holds no embeddings")
        part = store.part(objective.modality or store.modalities[0])
        vectors = part.vectors(objective.modality or store.modalities[0]).float()
        try:
            if centres is None:
                labels, centres = cluster_labels(vectors, objective.n_classes, nearest=objective.nearest)
            else:
                labels = topk_scores(unit(vectors, dim=-1), centres, objective.nearest)[1]
        except ValueError as error:
            raise InputError(f"MLCD: {place}: {error}") from error
        found |= dict(zip(map(str, part.ids), labels.cpu()))
    return found
