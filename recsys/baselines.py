"""What the baselines without gradients share: one step in which everything is counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.trainers import Stage
from counterpoint.recsys.base import Recommender


class Counted(Recommender):
    """A recommender that is computed from the histories, not trained."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("count", gradient_free=True, max_steps=1),)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        rows = next(value for value in batch.values() if isinstance(value, Tensor))
        return {"user": torch.zeros(len(rows), 1, device=self.device)}

    def observe(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.count()
        return {"interactions": torch.tensor(float(len(self.histories)))}

    def count(self) -> None:
        """Compute the buffers from the histories."""
        raise TypeError(f"{type(self).__name__} does not define count()")
