r"""The plug-in `gram_anchor`: a dense term that keeps the similarities between the places of a sample.

Simeoni et al., "DINOv3", 2025: with X the unit features of a sample's P places, S the student's and G the anchor's,

    L_Gram = || X_S X_S^T - X_G X_G^T ||_F^2

The features themselves may move as long as the similarities between them stay. The anchor is the system's own weights
at an earlier epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from counterpoint.common.errors import InputError
from counterpoint.common.kernels import unit
from counterpoint.common.trainers.plugin_configs import GramAnchorConfig
from counterpoint.common.trainers.plugins import Plugin


def gram_distance(
    student: Float[Tensor, "batch places dim"], anchor: Float[Tensor, "batch places other"]
) -> Float[Tensor, " batch"]:
    """Mean over all pairs of places of the squared difference of their cosines: L_Gram / P^2 of every sample.

    Widths may differ. The P x P matrices are not built where they are larger than the features: with A = X_S^T X_S,
    B = X_G^T X_G and C = X_S^T X_G, the squared norm is ||A||^2 + ||B||^2 - 2 ||C||^2.

    >>> x = torch.eye(3)[None]
    >>> gram_distance(x, x @ torch.tensor([[0., 1, 0], [1, 0, 0], [0, 0, 1]])).item()
    0.0
    """
    s, g = unit(student, dim=-1), unit(anchor, dim=-1)
    places = s.shape[1]
    if places <= s.shape[2]:
        total = (s @ s.mT - g @ g.mT).square().sum((1, 2))
    else:
        own, other, cross = s.mT @ s, g.mT @ g, s.mT @ g
        total = (own.square().sum((1, 2)) + other.square().sum((1, 2)) - 2 * cross.square().sum((1, 2))).clamp_min(0)
    return total / places**2


class DenseFeatures(nn.Module):
    """`dense_features` as a forward pass, so that it may run under other weights."""

    def __init__(self, system: nn.Module) -> None:
        super().__init__()
        self.system = system

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self.system.dense_features(batch)


class GramAnchor(Plugin):
    """Adds `weight` times the mean over the batch of `gram_distance` between the dense features and those that the
    weights of an earlier epoch give of the same samples."""

    Config = GramAnchorConfig
    anchor: dict[str, Tensor] | None = None

    def start(self, system: Any, samples: Any) -> None:
        super().start(system, samples)
        if self.anchor is None and self.config.start == 0:
            self.take()

    def take(self) -> None:
        """The weights as they are become the anchor."""
        self.anchor = {k: v.detach().clone() for k, v in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        return dict([*self.system.named_parameters(), *self.system.named_buffers()])

    def after_epoch(self) -> None:
        since = self.system.progress.epoch - self.config.start
        if since == 0 or (since > 0 and self.config.every and since % self.config.every == 0):
            self.take()

    def terms(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.anchor is None or not self.config.weight:
            return {}
        found = self.places(self.system.dense_features(batch))
        with torch.no_grad():
            named = {f"system.{k}": v.to(found.device) for k, v in self.anchor.items()}
            kept = self.places(functional_call(DenseFeatures(self.system), named, (batch,)))
        return {"gram": self.config.weight * gram_distance(found, kept)}

    def places(self, dense: Mapping[str, Tensor]) -> Float[Tensor, "batch places dim"]:
        """The features asked for, their places in a row."""
        name = self.config.modality or next(iter(dense))
        if name not in dense:
            raise InputError(f"gram_anchor.modality is {name!r}; the system has {', '.join(dense)}")
        return dense[name].flatten(1, -2)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.anchor is None else {"anchor": self.anchor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.anchor = dict(state["anchor"]) if "anchor" in state else None
