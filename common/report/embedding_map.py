"""A map of embeddings: every point says what it is under the pointer, the finger or the arrow keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.metrics.scores import Score, within

MAX_CLASSES = 16


def project(
    z: Tensor | np.ndarray, method: str = "pca", seed: int = 0, metric: str | Score = "cosine"
) -> np.ndarray:
    """Two coordinates per row: "pca" (linear, distances mean something) or "tsne" (neighbourhoods only: by angles, or
    by distances where the `metric` counts the rows' lengths).

    >>> project(np.eye(4)).shape
    (4, 2)
    """
    x = np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"embeddings must be [samples, dim], got shape {x.shape}")
    if x.shape[1] == 2:
        return x
    if x.shape[1] == 1 or len(x) < 3:
        return np.pad(x[:, :1], ((0, 0), (0, 1)))
    if method == "pca":
        centred = torch.from_numpy(x - x.mean(0))
        _, _, axes = torch.linalg.svd(torch.linalg.qr(centred, mode="r").R, full_matrices=False)
        axes = axes[:2]
        # The sign of an axis is free: make its largest entry positive, so that two runs give one picture.
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        return (centred @ axes.T).numpy()
    if method == "tsne":
        from sklearn.manifold import TSNE

        near = "cosine" if within(metric).unit else "euclidean"
        perplexity = min(30.0, (len(x) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed, metric=near).fit_transform(x)
    raise ValueError(f'method must be "pca" or "tsne", got {method!r}')


def embedding_map(
    xy: np.ndarray,
    labels: Sequence[object],
    hover: Sequence[str] | None = None,
    links: Sequence[tuple[int, int]] | None = None,
    *,
    name: str = "embedding map",
) -> str:
    """HTML of the map; `links` draws a line between rows (the two modalities of one sample).

    Beyond sixteen classes the rarest are shown together as "other".
    """
    xy = np.asarray(xy, dtype=np.float64)
    words = [str(label) for label in labels]
    notes = words if hover is None else [str(t) for t in hover]
    if not len(xy) == len(words) == len(notes):
        raise ValueError(f"{len(xy)} points need as many labels and hover texts, got {len(words)} and {len(notes)}")
    names, counts = np.unique(words, return_counts=True)
    if len(names) > MAX_CLASSES:
        common = set(names[np.argsort(-counts, kind="stable")[: MAX_CLASSES - 1]].tolist())
        words = [w if w in common else "other" for w in words]
        names = np.array(sorted(common - {"other"}) + ["other"])
    index = {n: i for i, n in enumerate(names.tolist())}
    low, span = xy.min(0), np.maximum(np.ptp(xy, axis=0), 1e-12)
    unit = np.round((xy - low) / span, 4)
    data = {
        "x": unit[:, 0].tolist(),
        "y": unit[:, 1].tolist(),
        "c": [index[w] for w in words],
        "t": notes,
        "names": names.tolist(),
        "links": None if links is None else [list(map(int, pair)) for pair in links],
    }
    payload = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    shape = "border-radius:50%;"
    legend = "".join(
        f'<li><button data-c="{i}" aria-pressed="true">'
        f'<i style="{shape if i < 8 else ""}background:var(--s{i % 8})"></i>'
        f"{escape(n)} <span class=soft>{words.count(n)}</span></button></li>"
        for i, n in enumerate(names.tolist())
    )
    return (
        '<div class="map"><div class="tools"><input type="search" placeholder="Find a label" aria-label="Find a label">'
        '<span class="soft">Point, touch, or use the arrow keys</span></div>'
        f'<canvas tabindex="0" role="application" aria-label="{escape(name)}: {len(xy)} points"></canvas>'
        f"<noscript>{_drawing(unit, np.array(data['c']), name)}</noscript>"
        f'<ul class="legend">{legend}</ul><div aria-live="polite" class="skip"></div>'
        f'<script type="application/json">{payload}</script></div>'
    )


def _drawing(unit: np.ndarray, codes: np.ndarray, name: str) -> str:
    """The points without their words, for where scripts do not run: one path a class, a round stroke a point."""
    places = np.column_stack([8 + 784 * unit[:, 0], 8 + 384 * (1 - unit[:, 1])]).round().astype(int)
    size = round(max(4.0, min(10.0, 180 / max(len(unit), 1) ** 0.5)), 1)
    paths = "".join(
        f'<path style="stroke:var(--s{c % 8})" d="{"".join(f"M{x} {y}h0" for x, y in places[codes == c].tolist())}"/>'
        for c in np.unique(codes).tolist()
    )
    style = f'fill="none" stroke-width="{size}" stroke-linecap="round" opacity=".8"'
    return f'<svg viewBox="0 0 800 400" role="img" aria-label="{escape(name)}"><g {style}>{paths}</g></svg>'
