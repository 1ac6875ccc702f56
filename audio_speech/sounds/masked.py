"""Masked prediction of frames: which are masked, how codes are learnt and told apart, and sounds laid over sounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.kernels import Index, contrast_stats

LEAST_SPANS = 2


def mask_spans(
    lengths: Int[Tensor, " batch"], frames: int, probability: float, span: int
) -> Bool[Tensor, "batch frames"]:
    """Frames to mask: spans at places drawn without replacement, as many as cover the share `probability` where none
    meet (rounded up or down by chance), two at least; all windows have as many masked frames as the fewest (fairseq's
    `compute_mask_indices` with static lengths). Shorter windows than two spans have one; random numbers are torch's.

    >>> masked = mask_spans(torch.tensor([100, 60]), 100, 0.5, 5)
    >>> bool(masked[0].sum() == masked[1].sum()), bool(masked[1, 60:].any())
    (True, False)
    """
    rows = []
    for length in lengths.tolist():
        size = max(min(span, length - 1), 1)
        places = max(length - size + 1, 0)
        count = max(int(probability * length / span + float(torch.rand(()))), LEAST_SPANS)
        starts = torch.randperm(places)[: min(count, places)]
        rows.append((starts[:, None] + torch.arange(size)).flatten().unique())
    kept = min((len(row) for row in rows if len(row)), default=0)
    masked = torch.zeros(len(rows), frames, dtype=torch.bool)
    for i, row in enumerate(rows):
        masked[i, row[torch.randperm(len(row))[:kept]]] = True
    return masked.to(lengths.device)


def code_losses(
    predicted: Float[Tensor, "frames dim"],
    codes: Int[Tensor, " frames"],
    table: Float[Tensor, "size dim"],
    temperature: float,
    backend: str = "auto",
) -> Float[Tensor, " frames"]:
    r"""Cross-entropy of the right code among all of a codebook, by cosines of a frame and the codes' learnt vectors.

        l_t = log sum_c exp(cos(p_t, e_c) / T) - cos(p_t, e_(c_t)) / T

    HuBERT's `compute_nce`, which also leaves out codes whose vectors equal the right one's bit for bit; learnt vectors
    do not.

    >>> code_losses(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), 1.0)  # log(1 + 1 / e)
    tensor([0.3133, 0.3133])
    """
    sides = normalize(predicted, dim=-1), normalize(table, dim=-1)
    stats = contrast_stats(*sides, scale=1 / temperature, positive=Index(codes), backend=backend)
    return stats.lse - stats.positive


def learn_codes(
    frames: Float[np.ndarray, "frames bands"], books: int, size: int, seed: int = 0
) -> Float[np.ndarray, "books size bands"]:
    """Residual codebooks: K-means of the frames, then of what the nearest centre leaves over of each, and so on."""
    from sklearn.cluster import MiniBatchKMeans

    left, found = np.ascontiguousarray(frames, dtype=np.float32), []
    for book in range(books):
        means = MiniBatchKMeans(size, batch_size=max(1024, 3 * size), n_init=1, random_state=seed + book).fit(left)
        centres = means.cluster_centers_.astype(np.float32)
        found.append(centres)
        left = left - centres[means.predict(left)]
    return np.stack(found)


def residual_codes(
    frames: Float[Tensor, "*batch bands"], books: Float[Tensor, "books size bands"]
) -> Int[Tensor, "*batch books"]:
    """The nearest centre of each book to what the books before it left over.

    >>> books = torch.tensor([[[0.0], [8.0]], [[-1.0], [1.0]]])
    >>> residual_codes(torch.tensor([[6.5], [0.2]]), books).tolist()
    [[1, 0], [0, 1]]
    """
    left, found = frames, []
    for centres in books:
        distance = centres.square().sum(1) - 2 * left @ centres.T
        nearest = distance.argmin(-1)
        found.append(nearest)
        left = left - centres[nearest]
    return torch.stack(found, -1)


def mix_in_batch(
    sound: Float[Tensor, "batch samples"],
    lengths: Int[Tensor, " batch"],
    probability: float,
    counts: Sequence[int],
    samples: Sequence[int],
) -> Float[Tensor, "batch samples"]:
    """With this probability a window hears so many stretches of the others, laid end to end, over places of its own.

    Numbers and lengths of stretches are uniform over the two ends given, both meant; sounds are added as loud as they
    are. The released code mixes with one minus the probability, the same at its 0.5, and mixes nothing where a stretch
    is longer than the others are; here it is as long as they are then. Random numbers are torch's.
    """
    mixed = sound.clone()
    for i, own in enumerate(lengths.tolist()):
        if float(torch.rand(())) >= probability or own < 1:
            continue
        others = [row[:n] for j, (row, n) in enumerate(zip(sound, lengths.tolist())) if j != i]
        pool = torch.cat(others or [sound[:0, 0]])
        for _ in range(int(torch.randint(counts[0], counts[1] + 1, ()))):
            size = min(int(torch.randint(samples[0], samples[1] + 1, ())), own, len(pool))
            if not size:
                continue
            start = int(torch.randint(len(pool) - size + 1, ()))
            place = int(torch.randint(own - size + 1, ()))
            mixed[i, place : place + size] += pool[start : start + size]
    return mixed
