r"""SASRec's encoder: a causal transformer over a user's items, whose last place is the user.

.. math::
    x_t &= \mathrm{drop}(\mathrm{LN}(e_{s_t} + p_t)), \qquad
    y = \mathrm{LN}(x + \mathrm{drop}(\mathrm{attention}(x))), \qquad
    x' = \mathrm{LN}(y + \mathrm{drop}(W_2\, \mathrm{gelu}(W_1 y)))

Sequences stand left in [batch, length] and are encoded together with those of like lengths; places behind their ends
cost little: linear layers see the places that there are, end to end, and the last block is asked for the last place
alone where no other is needed.

Source: Kang, McAuley, "Self-attentive sequential recommendation", ICDM 2018, with the normalisation behind the residual
and the GELU of RecBole's version, on which CL4SRec, DuoRec and MCLRec stand.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

LIKE = (4, 8, 16, 32)
"""Sequences up to these lengths are encoded together."""
NOTHING = -1
"""Stands behind the end of a sequence, and in the place of an item that is hidden."""


class SequenceEncoder(nn.Module):
    """Item sequences to vectors in the space of the item table.

    Args:
        n_items: rows of the item table.
        length: places that have a position vector; longer sequences are refused.
        dim, heads, layers, hidden: width, attention heads, blocks, width inside of a block's perceptron.
        dropout: of the input, of attention weights, and behind attention and perceptron.

    >>> encoder = SequenceEncoder(5, 4, dim=8, heads=2, layers=1, hidden=16, dropout=0.0)
    >>> encoder(torch.tensor([[3, 1, -1], [0, 2, 4]]), torch.tensor([2, 3])).shape
    torch.Size([2, 8])
    """

    def __init__(
        self, n_items: int, length: int, *, dim: int, heads: int, layers: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"a width of {dim} cannot be shared out over {heads} heads")
        self.length = length
        self.item_embedding = nn.Embedding(n_items, dim)
        self.position_embedding = nn.Embedding(length, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, dropout) for _ in range(layers))
        self.apply(_initialize)

    def forward(
        self, items: Int[Tensor, "batch length"], lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """The last place of every sequence. An item that is `NOTHING` within a sequence is hidden: it keeps its place
        and nobody attends to it. Raises `ValueError` for an empty sequence, or one that is too long."""
        # Attention costs the square of the longest: sequences of like lengths stand together.
        size = torch.bucketize(lengths, torch.tensor(LIKE, device=lengths.device))
        groups = [(size == n).nonzero().flatten() for n in range(len(LIKE) + 1)]
        groups = [rows for rows in groups if len(rows)]
        if len(groups) < 2:
            return self._run(items, lengths, last=True)
        found = torch.cat([self._run(items[rows], lengths[rows], last=True) for rows in groups])
        return found[torch.cat(groups).argsort()]

    def every_place(
        self, items: Int[Tensor, "batch length"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "places dim"], Bool[Tensor, "batch longest"]]:
        """All places of all sequences end to end, and where they stand in [batch, longest]."""
        longest = int(lengths.max())
        inside = torch.arange(longest, device=items.device) < lengths[:, None]
        return self._run(items, lengths, last=False), inside

    def _run(self, items: Tensor, lengths: Tensor, last: bool) -> Tensor:
        longest = int(lengths.max())
        if longest > self.length or int(lengths.min()) < 1:
            wrong = longest if longest > self.length else int(lengths.min())
            raise ValueError(f"a sequence has {wrong} items; there must be 1 to {self.length}")
        items = items[:, :longest]
        place = torch.arange(longest, device=items.device)
        inside = place < lengths[:, None]
        seen = items >= 0
        # Who attends to whom: earlier places with an item. Where there is none, a place looks at itself.
        look = seen[:, None, :] & (place <= place[:, None])
        look |= torch.eye(longest, dtype=torch.bool, device=items.device) & ~look.any(-1, keepdim=True)
        known = items[inside]
        x = torch.where((known >= 0)[:, None], self.item_embedding(known.clamp_min(0)), 0.0)
        x = self.drop(self.norm(x + self.position_embedding(place.expand_as(items)[inside])))
        ends = lengths.cumsum(0) - 1
        for n, block in enumerate(self.blocks, start=1):
            asked = lengths if last and n == len(self.blocks) else None
            x = block(x, inside, look, asked, ends)
        return x[ends] if last and not self.blocks else x


class Block(nn.Module):
    """Attention and perceptron, each with a residual and a norm behind it."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.attention_norm, self.norm = (nn.LayerNorm(dim, eps=1e-12) for _ in range(2))
        self.wide, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "places dim"],
        inside: Bool[Tensor, "batch longest"],
        look: Bool[Tensor, "batch longest longest"],
        asked: Int[Tensor, "batch"] | None,
        ends: Int[Tensor, "batch"],
    ) -> Float[Tensor, "some dim"]:
        """`asked`: the sequences' lengths, where only their last places are wanted."""
        key, value = (self._spread(layer(x), inside) for layer in (self.key, self.value))
        if asked is not None:
            x, look = x[ends], look[torch.arange(len(ends), device=x.device), asked - 1][:, None]
            query = self._split(self.query(x)[:, None])
        else:
            query = self._spread(self.query(x), inside)
        rate = self.drop.p if self.training else 0.0
        seen = scaled_dot_product_attention(query, key, value, attn_mask=look[:, None], dropout_p=rate)
        seen = seen.transpose(1, 2).flatten(2)
        seen = seen[:, 0] if asked is not None else seen[inside]
        x = self.attention_norm(x + self.drop(self.out(seen)))
        return self.norm(x + self.drop(self.narrow(nn.functional.gelu(self.wide(x)))))

    def _spread(self, x: Tensor, inside: Tensor) -> Float[Tensor, "batch heads longest width"]:
        """Places end to end back into their sequences, zeros behind the ends."""
        whole = x.new_zeros(*inside.shape, x.shape[-1])
        return self._split(whole.masked_scatter(inside[..., None], x))

    def _split(self, x: Float[Tensor, "batch places dim"]) -> Float[Tensor, "batch heads places width"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _initialize(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, zero biases, as BERT."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
