"""MiniRocket features of windows: what nobody has trained, for the figures of a trained encoder to stand beside.

Dempster, Schmidt, Webb, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time Series Classification", KDD
2021. The numbers are those of tsai's `MiniRocketFeatures` (tested), which multiplies every kernel with every channel
before it leaves most of them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.timeseries.windows import WindowSet

FEATURES = 9996  # 84 kernels times 119, the paper's about ten thousand
TAPS = 9
_ROWS = 64


@dataclass(frozen=True)
class MiniRocket:
    """Kernels of nine taps, three of them 2 and six -1, at dilations that grow with the length, and their biases.

        f = mean_t [ sum_{c in C_k} (w_k * x_c)(t) > b ],      b: a quantile of the same sum in one window of `fit`

    `weights` are [84, channels, 9] and `biases` [84, features of a kernel], one of each for every dilation.
    Half of the features leave out the ends, where a kernel meets padding; which half alternates with the dilation.

    >>> x = np.random.default_rng(0).normal(size=(10, 2, 40)).astype(np.float32)
    >>> MiniRocket.fit(x, features=168).transform(x).shape
    torch.Size([10, 168])
    """

    dilations: tuple[int, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @classmethod
    def fit(
        cls, x: Float32[np.ndarray, "windows channels length"], seed: int = 0, features: int = FEATURES
    ) -> MiniRocket:
        """Draw channels and biases by `seed`, the biases from the windows `x`; `features` are rounded to a multiple of
        84 from below.

        Raises:
            InputError: windows shorter than ten samples, or none.
        """
        count, channels, length = x.shape
        if length <= TAPS:
            raise InputError(f"MiniRocket needs windows of {TAPS + 1} samples or more, and these have {length}")
        if not count:
            raise InputError("MiniRocket draws its biases from training windows, and there are none")
        three = np.array(list(combinations(range(TAPS), 3)))
        kernels = np.full((len(three), TAPS), -1, np.float32)
        np.put_along_axis(kernels, three, 2, 1)
        dilations, sizes = _dilations(length, features // len(three))
        joined = _channels(channels, len(three) * len(dilations), seed).reshape(len(dilations), len(three), channels)
        draws = np.random.RandomState(seed)
        drawn = torch.from_numpy(x[draws.choice(count, len(three))])
        weights, biases = [], []
        for dilation, size, used in zip(dilations, sizes, joined):
            weights.append(torch.from_numpy(kernels[:, None] * used[:, :, None]))
            # Kernel j takes its quantiles from the j-th window drawn.
            own = _convolved(drawn, weights[-1], dilation).diagonal().T
            shares = torch.from_numpy(np.arange(1, size + 1) * ((np.sqrt(5) + 1) / 2) % 1).float()
            biases.append(torch.quantile(own, shares, dim=1).T)
        return cls(dilations, tuple(weights), tuple(biases))

    @torch.no_grad()
    def transform(self, x: Float32[np.ndarray, "windows channels length"]) -> Float[Tensor, "windows features"]:
        """The features of windows, each in [0, 1]."""
        found = []
        for i, (dilation, weight, bias) in enumerate(zip(self.dilations, self.weights, self.biases)):
            y = _convolved(torch.from_numpy(x), weight, dilation)
            ends = (TAPS - 1) * dilation // 2
            whole, inner = slice(i % 2, None, 2), slice(1 - i % 2, None, 2)
            found += [_shares(y[:, whole], bias[whole]), _shares(y[:, inner, ends:-ends], bias[inner])]
        return torch.cat(found, 1)


def _convolved(x: Tensor, weight: Tensor, dilation: int) -> Float[Tensor, "windows 84 length"]:
    return F.conv1d(x, weight, padding=(TAPS - 1) * dilation // 2, dilation=dilation)


def _shares(y: Float[Tensor, "windows kernels time"], bias: Float[Tensor, "kernels features"]) -> Tensor:
    """The share of time steps above each bias: [windows, kernels * features]."""
    above = [(y > bias[:, k, None]).float().mean(2) for k in range(bias.shape[1])]
    return torch.stack(above, 2).flatten(1)


def _dilations(length: int, per_kernel: int) -> tuple[tuple[int, ...], list[int]]:
    """Dilations 2^0 to where a kernel spans the window, and how many features each gets of a kernel's."""
    most = min(per_kernel, 32)
    spread = np.logspace(0, np.log2((length - 1) / (TAPS - 1)), most, base=2).astype(np.int32)
    found, counts = np.unique(spread, return_counts=True)
    sizes = (counts * (per_kernel / most)).astype(np.int32).tolist()
    for i in range(per_kernel - sum(sizes)):
        sizes[i % len(sizes)] += 1
    return tuple(found.tolist()), sizes


def _channels(channels: int, combinations_: int, seed: int) -> Float32[np.ndarray, "combinations channels"]:
    """Which channels each kernel at each dilation joins: one to nine, small numbers more often."""
    joined = np.ones((combinations_, channels), np.float32)
    if channels == 1:
        return joined
    draws = np.random.RandomState(seed)
    counts = (2 ** draws.uniform(0, np.log2(min(channels, 9) + 1), combinations_)).astype(np.int32)
    joined[:] = 0
    for row, count in zip(joined, counts):
        row[draws.choice(channels, count, replace=False)] = 1
    return joined


def minirocket_features(
    windows: WindowSet, fit_on: Int[np.ndarray, " rows"], seed: int = 0, features: int = FEATURES
) -> Float[Tensor, "windows features"]:
    """MiniRocket's features of windows, scaled as for the encoder, missing values 0; biases from the rows `fit_on`."""
    net = MiniRocket.fit(_batch(windows, fit_on), seed, features)
    starts = range(0, len(windows), _ROWS)
    parts = (np.arange(first, min(first + _ROWS, len(windows))) for first in starts)
    return torch.cat([net.transform(_batch(windows, rows)) for rows in track(parts, "MiniRocket", len(starts))])


def _batch(windows: WindowSet, rows: Int[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows channels length"]:
    return np.ascontiguousarray(np.nan_to_num(windows.stack(rows)).transpose(0, 2, 1))
