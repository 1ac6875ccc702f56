"""Several encoders as one: their representations side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class ConcatEncoder(nn.Module):
    r"""The stages' representations of a sample in one vector, :math:`[h_0(x); h_1(x); \ldots]`, of unit length.

    Multistage Contrastive Learning joins its stages so, and the authors' released notebook concatenates the raw
    features: a stage with longer vectors then counts for more. `normalize_each` gives every stage the same weight.

    Args:
        encoders: modules with `features(batch) -> {name: [batch, dim]}`, a `ContrastiveSystem` for one.
        normalize_each: bring every stage to unit length before they are joined.

    Source: "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning", ECCV 2024.

    >>> class Stage(nn.Module):
    ...     def features(self, batch):
    ...         return {"x": batch["x"]}
    >>> both = ConcatEncoder([Stage(), Stage()])
    >>> both.features({"x": torch.tensor([[3.0, 4.0]])})["x"]
    tensor([[3., 4., 3., 4.]])
    >>> both({"x": torch.tensor([[1.0, 1.0]])})["x"]
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    def __init__(self, encoders: Sequence[nn.Module], normalize_each: bool = False) -> None:
        super().__init__()
        if not encoders:
            raise ValueError("ConcatEncoder needs at least one encoder")
        self.encoders, self.normalize_each = nn.ModuleList(encoders), normalize_each

    def features(self, batch: Any) -> dict[str, Tensor]:
        """The stages side by side, not of unit length; names that every stage has."""
        found: list[dict[str, Tensor]] = [e.features(batch) for e in self.encoders]  # type: ignore[operator]
        if self.normalize_each:
            found = [{k: normalize(v, dim=-1) for k, v in stage.items()} for stage in found]
        names = [k for k in found[0] if all(k in stage for stage in found)]
        return {k: torch.cat([stage[k] for stage in found], dim=-1) for k in names}

    def encode(self, batch: Any, modality: str | None = None) -> dict[str, Tensor]:
        """Unit vectors, for evaluation and search."""
        found = {k: normalize(v, dim=-1) for k, v in self.features(batch).items()}
        return found if modality is None else {modality: found[modality]}

    def forward(self, batch: Any, modality: str | None = None) -> dict[str, Tensor]:
        return self.encode(batch, modality)
