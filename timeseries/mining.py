"""Bad pair mining around any instance-contrastive system, without the system knowing of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import Callback
from torch import Tensor

from counterpoint.common.losses import MultiViewNTXent, NTXent
from counterpoint.timeseries.configs import DBPMConfig
from counterpoint.timeseries.dbpm import BadPairMiner


class BadPairMining(Callback):
    """Weight the pairs of a system's NT-Xent objective by their remembered losses (DBPM).

        fit(system, callbacks=[BadPairMining(size=len(train), config=DBPMConfig(warmup=10), epochs=50)])

    The objective is found among the system's modules; its rows must be the batch's samples, in order, and it must be
    called once a step. The memory travels in the checkpoints. Validation is not touched, nor is a stage without an
    NT-Xent call.

    Args:
        size: training samples; `index` of a sample lies below it.
        epochs: planned epochs, E in the weighted mean of the memory.

    Raises `ValueError` when the system has no NT-Xent objective or several, or calls it twice in a step.
    """

    def __init__(self, size: int, config: DBPMConfig, epochs: int) -> None:
        self.miner = BadPairMiner(size, config, epochs)
        self._batch: tuple[Tensor, int] | None = None
        self._calls = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        found = [m for m in pl_module.modules() if isinstance(m, NTXent) and not isinstance(m, MultiViewNTXent)]
        if len(found) != 1:
            raise ValueError(f"BadPairMining needs a system with one NTXent objective, found {len(found)}")
        self._objective = found[0]
        self.miner.to(pl_module.device).train()
        found[0].forward = partial(self._mined, found[0])

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        del self._objective.forward  # the class's own forward shows again

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Mapping[str, Any], batch_idx: int) -> None:
        self._batch, self._calls = (batch["index"], pl_module.progress.epoch), 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._batch = None

    def _mined(
        self, objective: NTXent, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"], **arguments: Any
    ) -> Float[Tensor, ""]:
        rows = objective.row_losses(za, zb, group=arguments.get("group"))
        if self._batch is None or not torch.is_grad_enabled():
            return rows.mean()
        self._calls += 1
        index, epoch = self._batch
        if self._calls > 1 or len(index) != len(rows):
            raise ValueError("BadPairMining: the objective must be called once a step, on the batch's samples in order")
        return self.miner(rows, index, epoch).mean()

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return dict(self.miner.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the memory of a checkpoint."""
        self.miner.load_state_dict(state_dict)
