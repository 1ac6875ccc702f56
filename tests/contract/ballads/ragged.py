"""Rows of different lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Ragged:
    """Sequences laid end to end, [total], and the length of each, [rows]."""

    def __init__(self, values: Tensor, lengths: Tensor) -> None:
        self.values, self.lengths = values, lengths

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Ragged:
        """Sequences as one batch."""
        return cls(torch.cat(list(rows)), torch.tensor([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> Ragged:
        """The same on a device."""
        return Ragged(self.values.to(device), self.lengths.to(device))

    def cut(self, start: int, stop: int) -> Ragged:
        """Rows start..stop."""
        ends = [0, *self.lengths.cumsum(0).tolist()]
        return Ragged(self.values[ends[start] : ends[stop]], self.lengths[start:stop])

    @property
    def owners(self) -> Tensor:
        """The row of every value."""
        return torch.arange(len(self), device=self.lengths.device).repeat_interleave(self.lengths)

    def mean(self, vectors: Tensor, weights: Tensor | None = None) -> Tensor:
        """[rows, dim] weighted means of vectors [total, dim] given for every value."""
        weights = vectors.new_ones(len(vectors)) if weights is None else weights.to(vectors.dtype)
        sums = vectors.new_zeros(len(self), vectors.shape[1]).index_add(0, self.owners, vectors * weights[:, None])
        totals = vectors.new_zeros(len(self)).index_add(0, self.owners, weights)
        return sums / totals.clamp_min(1e-12)[:, None]

    def padded(self, vectors: Tensor) -> Tensor:
        """[rows, longest, dim] with zeros behind the ends."""
        return torch.nn.utils.rnn.pad_sequence(list(vectors.split(self.lengths.tolist())), batch_first=True)
