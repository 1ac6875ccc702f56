"""Batches of neighbours as Sample4Geo draws them: an anchor, its nearest ones, and some of those behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from counterpoint.common.data.samplers import NeighbourTableSampler, Values

CHUNK = 2048


class NeighbourBatchSampler(NeighbourTableSampler):
    """Anchors in random order; each brings its `near` first neighbours and `far` drawn from ranks `near` to the end of
    its list, those that no batch of the epoch holds yet, as long as there is room.

    Every sample stands at most once in an epoch; a last batch that is not full waits for another epoch. With `apart`, a
    sample whose value is in the batch already is passed over, and has its turn later. `update` gives the next epoch
    another table; tables travel in the state. A table of -1 gives random batches.

    Source: Deuser, Habel, Oswald, "Sample4Geo", ICCV 2023 (Skyy93/Sample4Geo 498c651, dataset/cvusa.py). There the
    sample with number 0 is never drawn as a neighbour, and 1024 misses in a row end an epoch; neither is so here.

    >>> table = np.array([[1, 2, 3], [0, 2, 3], [3, 1, 0], [2, 1, 0]])
    >>> sampler = NeighbourBatchSampler(table, batch_size=2, near=1, far=0)
    >>> sorted(sorted(batch) for batch in sampler)
    [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        neighbours: Any,
        batch_size: int,
        near: int = 32,
        far: int = 32,
        apart: Values | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(neighbours, batch_size, apart, seed)
        if near < 0 or far < 0:
            raise ValueError(f"near and far are numbers of neighbours, not {near} and {far}")
        self.near, self.far = near, far

    def batches(self, epoch: int) -> Sequence[Any]:
        rng = self._rng(epoch)
        pool = rng.permutation(len(self.neighbours)).tolist()
        used = np.zeros(len(pool), dtype=bool)
        result: list[list[int]] = []
        batch: list[int] = []
        held: set[int] = set()
        waiting: list[int] = []

        def take(i: int) -> None:
            if not used[i] and int(self.codes[i]) not in held and len(batch) < self.batch_size:
                used[i] = True
                batch.append(i)
                held.add(int(self.codes[i]))

        pool.reverse()
        while pool:
            anchor = pool.pop()
            if used[anchor]:
                continue
            if int(self.codes[anchor]) in held:
                waiting.append(anchor)
                continue
            take(anchor)
            row = self.neighbours[anchor]
            behind = row[self.near :]
            for i in (*row[: self.near], *rng.permutation(behind)[: self.far]):
                if i >= 0:
                    take(int(i))
            if len(batch) == self.batch_size:
                result.append(batch)
                batch, held = [], set()
                pool.extend(reversed(waiting))
                waiting = []
        return result


def nearest_places(
    latitude: Float[np.ndarray, " n"], longitude: Float[np.ndarray, " n"], count: int
) -> Int[np.ndarray, "n k"]:
    """The nearest other samples on the sphere, nearest first; of equal distances the one with the lower number.

    >>> nearest_places(np.array([0.0, 0.0, 0.0]), np.array([0.0, 1.0, 3.0]), 2).tolist()
    [[1, 2], [0, 2], [1, 0]]
    """
    lat, lon = np.radians(latitude), np.radians(longitude)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    n, k = len(points), min(count, len(latitude) - 1)
    table = np.empty((n, max(k, 0)), dtype=np.int64)
    for start in range(0, n, CHUNK):
        # Chords order as arcs do, and tell small distances better than cosines.
        part = points[start : start + CHUNK]
        away = np.square(part[:, None, :] - points[None]).sum(-1) if n <= CHUNK else 2 - 2 * part @ points.T
        away[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        table[start : start + len(part)] = np.argsort(away, axis=1, kind="stable")[:, :k]
    return table
