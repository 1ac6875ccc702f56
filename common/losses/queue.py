"""A first-in, first-out queue of past keys (MoCo's dictionary)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.losses.sharing import Shared

__all__ = ["FeatureQueue"]


class FeatureQueue(Shared, nn.Module):
    """The last `size` keys and their ids, kept in the checkpoint as buffers.

    `push` replaces the buffers instead of writing into them, so that keys saved for a backward pass stay what they
    were. Until it is full, `keys` and `ids` hold only what was pushed. Ids are the samples' `group` or `index` (-1:
    unknown, never equal to a row's id), so that a row can leave out keys of its own sample. Where
    ranks share the batch (`distributed`, as for every objective) a push takes the keys of all: all hold the same queue.

    >>> queue = FeatureQueue(4, 2)
    >>> queue.push(torch.ones(3, 2)); queue.push(torch.zeros(3, 2))
    >>> queue.keys[:, 0].tolist()
    [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, size: int, dim: int, distributed: str | None = None):
        super().__init__(distributed)
        if size < 1:
            raise ValueError(f"a queue needs size >= 1, got {size}")
        self.size = size
        self.register_buffer("_keys", torch.zeros(size, dim))
        self.register_buffer("_ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("_pushed", torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> int:
        """How many keys it holds."""
        return min(int(self._pushed), self.size)

    @property
    def keys(self) -> Float[Tensor, "filled dim"]:
        return self._keys[: self.filled]

    @property
    def ids(self) -> Int[Tensor, "filled"]:
        return self._ids[: self.filled]

    def __len__(self) -> int:
        return self.filled

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"] | None = None) -> None:
        """Append keys (detached); the oldest fall out. A batch larger than the queue leaves its last `size` keys."""
        keys = keys.detach()
        ids = torch.full((len(keys),), -1, device=keys.device) if ids is None else ids
        keys, ids = self.union(keys), self.union(ids)
        start = int(self._pushed) + max(len(keys) - self.size, 0)
        keys, ids = keys[-self.size :], ids[-self.size :]
        where = (start + torch.arange(len(keys), device=self._keys.device)) % self.size
        self._keys = self._keys.to(keys.dtype).index_copy(0, where, keys.to(self._keys.device))
        self._ids = self._ids.index_copy(0, where, ids.to(self._ids))
        self._pushed = torch.tensor(start + len(keys), device=self._pushed.device)

    def extra_repr(self) -> str:
        return f"size={self.size}, dim={self._keys.shape[1]}, filled={self.filled}"
