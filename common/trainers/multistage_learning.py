"""Multistage Contrastive Learning: a new encoder per stage, contrasted where the earlier ones saw no difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from sklearn.cluster import KMeans

from counterpoint.common.data.samplers import BatchSampler, WithinClusterBatchSampler
from counterpoint.common.data.samples import Samples
from counterpoint.common.errors import InputError
from counterpoint.common.models import ConcatEncoder
from counterpoint.common.trainers.config_files import override
from counterpoint.common.trainers.fitting import fit
from counterpoint.common.trainers.hard_negatives import unit_embeddings
from counterpoint.common.trainers.plugin_configs import WithinClustersConfig
from counterpoint.common.trainers.plugins import Plugin
from counterpoint.common.trainers.run_folder import CONFIG, checkpoint_dir, load_run

CLUSTERS = "clusters.npy"


def multistage(
    create: Callable[[int, str], Any],
    out: str | Path,
    stages: int = 3,
    clusters: int = 5,
    modality: str | None = None,
    normalize_each: bool = False,
) -> ConcatEncoder:
    """Train the stages one after the other; returns the frozen encoders side by side.

    After stage s the training set is clustered by K-means on its normalised contrast embeddings; in stage s + 1 every
    batch comes from one combination of all clusters so far, so that what the earlier stages tell apart no longer helps
    against the negatives (the plug-in `within_clusters`). The loss stays as it is.

    Args:
        create: `create(stage, folder)` builds a system with new weights and `train.out = folder`.
        out: `out/stage0`, `out/stage1`, ... are ordinary run folders, with `clusters.npy` beside the checkpoints. A
            call with the same `out` goes on where an earlier one stopped; `--resume` continues one stage.
        stages, clusters: how many of them.
        modality: the embedding that is clustered; None is the system's first.
        normalize_each: see `ConcatEncoder`.

    Source: "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning", ECCV 2024.
    """
    if stages < 1 or clusters < 2:
        raise ValueError(f"multistage needs at least one stage and two clusters, got {stages} and {clusters}")
    runs = [Path(out) / f"stage{s}" for s in range(stages)]
    for number, run in enumerate(runs):
        file = run / CLUSTERS
        if not file.is_file():
            _train(create, number, run)
            np.save(file, cluster_samples(load_run(run, "last"), clusters, modality), allow_pickle=False)
    return ConcatEncoder([load_run(run, "last").requires_grad_(False) for run in runs], normalize_each).eval()


def _train(create: Callable[[int, str], Any], number: int, run: Path) -> None:
    started = (run / CONFIG).is_file() and checkpoint_dir(run, "last").exists()
    system = load_run(run, "last") if started else create(number, str(run))
    if number:
        files = [f"../stage{stage}/{CLUSTERS}" for stage in range(number)]
        plugins = {**system.config.train.plugins, "within_clusters": {"files": files}}
        system.config = override(system.config, {"train.plugins": plugins})
    fit(system, resume=run if started else None)


def cluster_samples(system: Any, clusters: int, modality: str | None = None) -> Int[np.ndarray, " samples"]:
    """K-means of the training set's normalised contrast embeddings, in evaluation mode, one view per sample."""
    vectors, found = unit_embeddings(system, system.datasets().train, modality)
    if found.left_out:
        bad, reason = found.left_out[0]
        raise InputError(f"sample {bad} cannot be read ({reason}); stages need every sample")
    table = vectors.numpy()
    labels = KMeans(min(clusters, len(table)), n_init=10, random_state=system.config.train.seed).fit_predict(table)
    return labels.astype(np.int64)


class WithinClusters(Plugin):
    """The plug-in `within_clusters`: every batch from one combination of the clusters that earlier stages left."""

    Config = WithinClustersConfig

    def batch_sampler(self, samples: Samples, batch_size: int, seed: int) -> BatchSampler:
        if not self.config.files:
            raise InputError("within_clusters.files: give the clusters.npy of every earlier stage")
        tables = [_clusters_of(self.system.run_dir / file, len(samples)) for file in self.config.files]
        return WithinClusterBatchSampler(tables, batch_size, seed, self.config.fallback)


def _clusters_of(file: Path, samples: int) -> Int[np.ndarray, " samples"]:
    try:
        table = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"within_clusters.files: {file} cannot be read as clusters ({reason})") from error
    if table.shape != (samples,) or not np.issubdtype(table.dtype, np.integer):
        raise InputError(
            f"within_clusters.files: {file} holds {table.dtype} {list(table.shape)}; it must name the cluster, a whole "
            f"number, of each of the {samples} training samples"
        )
    return table
