"""Multistage Contrastive Learning: a new encoder per stage, contrasted where the earlier ones saw no difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.samplers import WithinClusterBatchSampler
from counterpoint.common.errors import InputError
from counterpoint.common.models import ConcatEncoder
from counterpoint.common.trainers.fitting import fit
from counterpoint.common.trainers.run import CONFIG, checkpoint_dir, load_run

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
    against the negatives (see `WithinClusterBatchSampler`). The loss stays as it is.

    Args:
        create: `create(stage, folder)` builds a system with new weights and `train.out = folder`.
        out: `out/stage0`, `out/stage1`, ... are ordinary run folders, with `clusters.npy` beside the checkpoints. A
            call with the same `out` goes on where an earlier one stopped.
        stages, clusters: how many of them.
        modality: the embedding that is clustered; None is the system's first.
        normalize_each: see `ConcatEncoder`.

    Source: "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning", ECCV 2024.
    """
    if stages < 1 or clusters < 2:
        raise ValueError(f"multistage needs at least one stage and two clusters, got {stages} and {clusters}")
    earlier: list[np.ndarray] = []
    runs = [Path(out) / f"stage{s}" for s in range(stages)]
    for number, run in enumerate(runs):
        file = run / CLUSTERS
        if not file.is_file():
            _train(create, number, run, earlier)
            np.save(file, cluster(load_run(run, "last"), clusters, modality), allow_pickle=False)
        earlier.append(np.load(file, allow_pickle=False))
    return ConcatEncoder([load_run(run, "last").requires_grad_(False) for run in runs], normalize_each).eval()


def _train(create: Callable[[int, str], Any], number: int, run: Path, earlier: list[np.ndarray]) -> None:
    started = (run / CONFIG).is_file() and checkpoint_dir(run, "last").exists()
    system = load_run(run, "last") if started else create(number, str(run))
    if earlier:
        system.batch_sampler = lambda dataset, size, seed: WithinClusterBatchSampler(earlier, size, seed)
    fit(system, resume=run if started else None)


def cluster(system: Any, clusters: int, modality: str | None = None) -> Int[np.ndarray, " samples"]:
    """K-means of the training set's normalised contrast embeddings, in evaluation mode, one view per sample."""
    samples, name = system.datasets().train, modality or system.modalities[0]

    def contrasted(batch: Any) -> dict[str, Tensor]:
        embeddings = system.embed(batch)
        if name not in embeddings:
            raise InputError(f"modality {name!r} is not one of {', '.join(embeddings)}")
        return {name: normalize(embeddings[name].float(), dim=-1)}

    train = system.config.train
    found = encode_rows(system, samples, what=contrasted, batch_size=train.batch_size, seed=train.seed)
    if found.left_out:
        bad, reason = found.left_out[0]
        raise InputError(f"sample {bad} cannot be read ({reason}); stages need every sample")
    table = found.vectors[name].numpy()
    labels = KMeans(min(clusters, len(table)), n_init=10, random_state=system.config.train.seed).fit_predict(table)
    return labels.astype(np.int64)
