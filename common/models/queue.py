"""A first-in first-out memory of embeddings: negatives beyond the batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn


class EmbeddingQueue(nn.Module):
    """The last `size` embeddings (of all ranks), with their samples' group ids, as buffers of the model.

    Being buffers, keys travel in every checkpoint. A push gathers all ranks' keys in rank order, so that every rank
    holds the same queue. The part not yet filled is not returned.

    Source: He et al., "Momentum Contrast", CVPR 2020.

    >>> queue = EmbeddingQueue(size=4, dim=2)
    >>> queue.push(torch.ones(3, 2), torch.tensor([1, 2, 3]))
    >>> queue.keys.shape, queue.groups.tolist()
    (torch.Size([3, 2]), [1, 2, 3])
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds at least one embedding, got size {size}")
        self.size = size
        self.register_buffer("memory", torch.zeros(size, dim))
        self.register_buffer("memory_groups", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def keys(self) -> Float[Tensor, "filled dim"]:
        """The embeddings, in slot order."""
        return self.memory[: min(int(self.pushed), self.size)]

    @property
    def groups(self) -> Int[Tensor, " filled"]:
        """Group ids of the keys (-1 where none was given)."""
        return self.memory_groups[: min(int(self.pushed), self.size)]

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "batch dim"], groups: Int[Tensor, " batch"] | None = None) -> None:
        """Add a batch, replacing the oldest."""
        if groups is None:
            groups = torch.full((len(keys),), -1, dtype=torch.int64, device=keys.device)
        keys, groups = _gathered(keys.detach()), _gathered(groups)
        start = int(self.pushed) + max(0, len(keys) - self.size)
        keys, groups = keys[-self.size :], groups[-self.size :]
        slots = (start + torch.arange(len(keys), device=keys.device)) % self.size
        self.memory[slots] = keys.to(self.memory.dtype)
        self.memory_groups[slots] = groups
        self.pushed.fill_(start + len(keys))


def _gathered(x: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)
