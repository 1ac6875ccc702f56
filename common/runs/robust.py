"""A run's figures again under corrupted inputs: each input alone, every corruption at every severity."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import (
    CORRUPTIONS,
    CorruptionSweep,
    Retrieval,
    corruption_sweep,
    encode_labels,
    knn,
    retrieval,
)
from counterpoint.common.runs.encode import encode_part, modality_pairs
from counterpoint.common.runs.measure import Examined
from counterpoint.common.suggest import no_such

Vectors = dict[str, Tensor]


def check_corruptions(names: Sequence[str], severities: Sequence[float]) -> None:
    """Refuse what does not exist before anything is encoded."""
    for name in names:
        if name not in CORRUPTIONS:
            raise no_such("corruption", name, CORRUPTIONS)
    if names and (not severities or min(severities) < 0):
        raise InputError(f"--severities {_typed(severities)}: give numbers of at least 0, as in 0.25,0.5,1")
    for name in ("hide", "cut"):
        if name in names and max(severities) > 1:
            raise InputError(f"--severities {_typed(severities)}: {name} takes shares, at most 1")


def _typed(values: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in values)


def corrupted(
    seen: Examined, names: Sequence[str], severities: Sequence[float], *, batch_size: int, seed: int
) -> dict[str, CorruptionSweep]:
    """One sweep for each input of the system that holds numbers (spectrogram, image, signal), the others staying clean.

    The figure is kNN balanced accuracy among the clean training samples where there are labels, else R@10 between the
    modalities, averaged over directions. The same sample meets the same noise at any batch size.
    """
    encoded = seen.encoded
    system, dataset, positions = encoded.system, encoded.dataset, encoded.positions

    def encode(change: Callable[[dict, list[int]], dict] | None) -> Vectors:
        return encode_part(system, dataset, positions, batch_size, change=change).vectors

    found = {}
    for field in _inputs(encoded):
        figure, score, chance = _figure(seen, field)

        def swept(transform: Callable | None, field: str = field, score: Callable = score) -> float:
            if transform is None:
                return score(encoded.vectors)

            def change(batch: dict, rows: list[int]) -> dict:
                x = batch[field].cpu()
                parts = [transform((x[i], _generator(seed, field, row))) for i, row in enumerate(rows)]
                return {**batch, field: torch.stack(parts).to(batch[field].device)}

            return score(encode(change))

        ways = {name: partial(_corrupt, CORRUPTIONS[name]) for name in names}
        found[f"corrupted {field}, {figure}"] = corruption_sweep(swept, ways, severities, chance=chance)
    return found


def _corrupt(way: Callable, pair: tuple[Tensor, torch.Generator], severity: float) -> Tensor:
    return way(pair[0], severity, pair[1])


def _generator(seed: int, field: str, row: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{field}/{row}".encode()))


def _inputs(encoded: object) -> list[str]:
    """Names of the batch's tensors of numbers with one row per sample; those named after a modality when there are."""
    batch = encoded.dataset.collate([encoded.sample(0)])
    if not isinstance(batch, Mapping):
        raise InputError(
            f"--corrupt: a batch of {type(encoded.system).__name__} is one {type(batch).__name__}, of which no part is "
            "known to be a tensor of numbers to corrupt"
        )
    numbers = [
        name
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1 and len(value) == 1
    ]
    named = [name for name in numbers if name in encoded.vectors]
    if not numbers:
        raise InputError(
            f"--corrupt: the batches of {type(encoded.system).__name__} hold no tensors of numbers to corrupt "
            f"(they hold {', '.join(batch)})"
        )
    return named or numbers


def _figure(seen: Examined, field: str) -> tuple[str, Callable[[Vectors], float], float]:
    """(name of the figure, function of the embeddings, chance)."""
    encoded = seen.encoded
    if seen.evaluation.task not in ("unlabelled", "classification"):
        raise InputError(f"--corrupt: {seen.evaluation.task} labels have no single figure; give --label one of classes")
    if encoded.labels is not None:
        names = [field] if field in encoded.vectors else list(encoded.vectors)
        bank = seen.others.get("train")
        if bank is None:
            raise InputError("--corrupt with --label needs a training split to take neighbours from")
        classes = len(encode_labels(encoded.labels)[0].classes)

        def accuracy(z: Vectors) -> float:
            options = {"ks": (5,), "n_boot": 1, "metric": encoded.system.metric}
            scores = [knn(bank.vectors[m], bank.labels, z[m], encoded.labels, **options).best for m in names]
            return sum(s.metrics["balanced_accuracy"] for s in scores) / len(scores)

        return "kNN balanced accuracy", accuracy, 1 / classes
    pairs = [(a, b) for a, b in modality_pairs(encoded) if {a, b} <= set(encoded.vectors)]
    if not pairs:
        raise InputError("--corrupt needs --label: there are no two modalities to retrieve between")

    def found(z: Vectors, a: str, b: str) -> Retrieval:
        relevant, exclude = (encoded.links(a, b, what) for what in ("relevant", "exclude"))
        return retrieval(
            z[a], z[b], relevant=relevant, exclude=exclude, metric=encoded.system.metric, ks=(10,), n_boot=1
        )

    def recall(z: Vectors) -> float:
        ways = [way for a, b in pairs for way in vars(found(z, a, b)).values()]
        return sum(way.metrics["R@10"] for way in ways) / len(ways)

    return "R@10", recall, min(10, len(encoded)) / len(encoded)
