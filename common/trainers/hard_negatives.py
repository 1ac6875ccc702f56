"""Hard negatives by refreshed neighbours: batches are filled with samples that the system finds alike by now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.data.dataset import group_codes
from counterpoint.common.data.encoding import EncodedRows, encode_rows
from counterpoint.common.data.samplers import BatchSampler, HardNegativeBatchSampler
from counterpoint.common.data.samples import Samples
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import SameLabel, topk_scores
from counterpoint.common.trainers.plugin_configs import HardNegativesConfig
from counterpoint.common.trainers.plugins import Plugin


class HardNegatives(Plugin):
    """The plug-in `hard_negatives`: a `HardNegativeBatchSampler` whose neighbours are looked up anew every few epochs.

    Until the first look-up batches are random. A batch holds a group once: the samples of one group (patient, piece,
    scene) are no negatives of each other, nor each other's neighbours. The look-up encodes the training set in
    evaluation mode and takes no random numbers; over several ranks the first one's neighbours count.
    """

    Config = HardNegativesConfig
    samples: Samples

    def __init__(self, config: HardNegativesConfig) -> None:
        super().__init__(config)
        for name, least in (("start", 1), ("every", 1), ("neighbours", 1), ("per_seed", 1), ("skip", 0)):
            if getattr(config, name) < least:
                raise InputError(f"hard_negatives.{name} is {getattr(config, name)}; it must be at least {least}")

    def batch_sampler(self, samples: Samples, batch_size: int, seed: int) -> BatchSampler:
        self.samples = samples
        nobody = np.full((len(samples), 1), -1)
        return HardNegativeBatchSampler(nobody, batch_size, self.config.per_seed, samples.groups, seed)

    def after_epoch(self) -> None:
        progress = self.system.progress
        since = progress.epoch - self.config.start
        if since >= 0 and since % self.config.every == 0 and progress.step < self.system.total_steps:
            self.system.sampler.update(self.nearest())

    def nearest(self) -> Int[np.ndarray, "samples neighbours"]:
        """The most similar samples of other groups, nearest first; -1 where there is none."""
        config, n = self.config, len(self.samples)
        vectors, found = unit_embeddings(self.system, self.samples, config.modality)
        vectors, groups = (x.to(self.system.device) for x in (vectors, group_codes(found.groups)))
        wanted = min(config.neighbours + config.skip, len(vectors))
        near = topk_scores(vectors, vectors, wanted, exclude=SameLabel(groups))[1].cpu()[:, config.skip :]
        positions = torch.tensor([*found.positions, -1])  # -1, nobody, stays -1
        table = torch.full((n, max(near.shape[1], 1)), -1)
        table[found.positions, : near.shape[1]] = positions[near]
        if dist.is_available() and dist.is_initialized():
            table = table.to(self.system.device)
            dist.broadcast(table, 0)
        return table.cpu().numpy()


def unit_embeddings(
    system: Any, samples: Samples, modality: str | None = None
) -> tuple[Float[Tensor, "rows dim"], EncodedRows]:
    """What a system contrasts of a modality (None or empty: its first), of unit length, in evaluation mode, one view of
    each sample; and whose rows they are."""
    name = modality or system.modalities[0]

    def contrasted(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        embeddings = system.embed(batch)
        if name not in embeddings:
            raise InputError(f"modality {name!r} is not one of {', '.join(embeddings)}")
        if embeddings[name].ndim != 2:
            raise InputError(f"modality {name!r} has several vectors per sample: there is no one vector to compare")
        return {name: normalize(embeddings[name].float(), dim=-1)}

    train = system.config.train
    found = encode_rows(system, samples, what=contrasted, batch_size=train.batch_size, seed=train.seed)
    return found.vectors[name], found
