"""The plug-in `neighbour_batches`: batches of neighbours on the ground, and later of samples that look alike."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int

from counterpoint.common.data.neighbour_batches import NeighbourBatchSampler, nearest_places
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import Samples
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import Self, topk_scores
from counterpoint.common.trainers.hard_negatives import unit_embeddings
from counterpoint.common.trainers.plugin_configs import NeighbourBatchesConfig
from counterpoint.common.trainers.plugins import Plugin


class NeighbourBatches(Plugin):
    """Sample4Geo's sampling: the neighbour lists are by distance on the ground at first, and every `similar_every`
    epochs by the cosine between a sample of the first modality and those of the second.

    The look-up encodes the training set in evaluation mode and takes no random numbers; over several ranks the first
    one's neighbours count.
    """

    Config = NeighbourBatchesConfig
    samples: Samples

    def batch_sampler(self, samples: Samples, batch_size: int, seed: int) -> BatchSampler:
        self.samples, config = samples, self.config
        table = self.on_the_ground() if config.by else np.full((len(samples), 1), -1)
        apart = (
            None if not config.apart else samples.groups if config.apart == "group" else samples.column(config.apart)
        )
        return NeighbourBatchSampler(table, batch_size, config.near, config.far, apart, seed)

    def on_the_ground(self) -> Int[np.ndarray, "samples neighbours"]:
        """The nearest samples by latitude and longitude."""
        if len(self.config.by) != 2:
            raise InputError(f"neighbour_batches.by names latitude and longitude, as in lat,lon; not {self.config.by}")
        found = []
        for name in self.config.by:
            values = np.array([np.nan if v is None else v for v in self.samples.column(name)], dtype=float)
            if not np.isfinite(values).all():
                missing = int((~np.isfinite(values)).argmax())
                raise InputError(f"neighbour_batches: sample {self.samples.ids[missing]} has no {name}")
            found.append(values)
        return nearest_places(*found, self.config.ranks)

    def after_epoch(self) -> None:
        progress, config = self.system.progress, self.config
        since = progress.epoch - config.similar_start
        due = config.similar_every and since >= 0 and since % config.similar_every == 0
        if due and progress.step < self.system.total_steps:
            self.system.sampler.update(self.alike())

    def alike(self) -> Int[np.ndarray, "samples neighbours"]:
        """The most similar samples of the other modality, without a sample's own partner; -1 where there is none."""
        names = self.system.modalities[:2]
        pairs = [unit_embeddings(self.system, self.samples, name) for name in names]
        (queries, found), (keys, _) = pairs[0], pairs[-1]
        wanted = min(self.config.ranks, len(keys) - 1)
        near = topk_scores(queries.to(self.system.device), keys.to(self.system.device), wanted, exclude=Self())[1].cpu()
        positions = torch.tensor([*found.positions, -1])
        table = torch.full((len(self.samples), max(wanted, 1)), -1)
        table[found.positions, : near.shape[1]] = positions[near]
        if dist.is_available() and dist.is_initialized():
            table = table.to(self.system.device)
            dist.broadcast(table, 0)
        return table.cpu().numpy()
