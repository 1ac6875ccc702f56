"""Embedding tables of users and items that grow without moving a bit of an old row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@torch.no_grad()
def grown(table: nn.Embedding, rows: int) -> nn.Embedding:
    """The table with more rows, old ones bit for bit; new ones are the mean of the old: a newcomer is an average
    one until it is trained. A `padding_idx` stays zero and does not count.

    Raises `ValueError` for fewer rows than there are.

    >>> grown(nn.Embedding.from_pretrained(torch.tensor([[1.0], [3.0]])), 3).weight.tolist()
    [[1.0], [3.0], [2.0]]
    """
    old = table.weight
    if rows < len(old):
        raise ValueError(f"a table of {len(old)} rows cannot shrink to {rows}: ids may be added, never taken away")
    new = nn.Embedding(rows, old.shape[1], padding_idx=table.padding_idx, device=old.device, dtype=old.dtype)
    counted = old if table.padding_idx is None else old[torch.arange(len(old)) != table.padding_idx]
    new.weight[: len(old)] = old
    new.weight[len(old) :] = counted.mean(0)
    new.weight.requires_grad_(old.requires_grad)
    return new


def dropped_by_id(x: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"], p: float) -> Float[Tensor, "batch dim"]:
    """Dropout with one mask for every id, as if the whole table had been dropped out before rows were taken from it.

    >>> out = dropped_by_id(torch.ones(2, 8), torch.tensor([3, 3]), 0.5)
    >>> torch.equal(out[0], out[1])
    True
    """
    if not p:
        return x
    own, place = ids.unique(return_inverse=True)
    # Uniform numbers in float32 whatever x is: `bernoulli_` takes four times as long.
    kept = torch.rand(len(own), x.shape[1], device=x.device) >= p
    return x * (kept / (1 - p)).to(x.dtype)[place]
