r"""How often items come by in a stream, estimated in constant memory, and the softmax that is corrected by it.

In-batch softmax meets item j as a negative as often as it comes by, so that popular items are pushed away. Subtracting
the logarithm of that probability from its score makes the softmax an estimate of the one over all items:

.. math::
    s^c(x_i, y_j) = s(x_i, y_j) / \tau - \log p_j, \qquad
    L = -\frac{1}{B} \sum_i \log \frac{e^{s^c(x_i, y_i)}}{\sum_j e^{s^c(x_i, y_j)}}

with :math:`p_j = 1 / B_j`, :math:`B_j` the mean number of steps from one coming to the next.

Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal, SameLabel, contrast_stats
from counterpoint.common.losses import Shared

PRIME = 2_147_483_647


class StreamingFrequency(Shared, nn.Module):
    r"""Steps between two comings of an item, a moving average under hashing.

    For every item of the batch of step t and every hash h: :math:`B_h \leftarrow (1 - a) B_h + a (t - A_h)`,
    :math:`A_h \leftarrow t`. Collisions make gaps shorter, so that the largest of the several hashes' B is taken. All
    ranks see the items of all ranks and keep the same state.

    Args:
        buckets: places of every hash; memory is 2 x hashes x buckets numbers, whatever the number of items.
        hashes: how many.
        rate: a.
        first: B before an item has come by.

    >>> frequency = StreamingFrequency(16, hashes=1, rate=0.5, first=4.0)
    >>> for _ in range(12):
    ...     frequency.update(torch.tensor([3]))
    >>> round(frequency(torch.tensor([3])).item(), 2)      # it comes by at every step
    1.0
    """

    last: Tensor
    gap: Tensor
    time: Tensor
    factors: Tensor

    def __init__(
        self, buckets: int = 2**20, *, hashes: int = 2, rate: float = 0.05, first: float = 100.0, seed: int = 0
    ) -> None:
        super().__init__()
        if buckets < 1 or hashes < 1 or not 0 < rate <= 1 or first < 1:
            raise ValueError(
                f"buckets {buckets} and hashes {hashes} must be 1 or more, rate {rate} above 0 and at most 1, "
                f"first {first} 1 or more"
            )
        self.buckets, self.rate = buckets, rate
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("factors", torch.randint(1, PRIME, (hashes, 2), generator=generator))
        self.register_buffer("last", torch.zeros(hashes, buckets, dtype=torch.int64))
        self.register_buffer("gap", torch.full((hashes, buckets), float(first)))
        self.register_buffer("time", torch.zeros((), dtype=torch.int64))

    def places(self, ids: Int[Tensor, "some"]) -> Int[Tensor, "hashes some"]:
        """The bucket of every id under every hash."""
        factor, shift = self.factors[:, :1], self.factors[:, 1:]
        return ((factor * (ids % PRIME) + shift) % PRIME) % self.buckets

    @torch.no_grad()
    def update(self, ids: Int[Tensor, "batch"]) -> None:
        """The items of one step, each counted once."""
        self.time += 1
        for row, places in enumerate(self.places(self.union(ids))):
            own = places.unique()
            passed = (self.time - self.last[row, own]).to(self.gap)
            self.gap[row, own] = (1 - self.rate) * self.gap[row, own] + self.rate * passed
            self.last[row, own] = self.time

    def forward(self, ids: Int[Tensor, "some"]) -> Float[Tensor, "some"]:
        """The probability that an item comes by in a step."""
        return 1.0 / self.gap.gather(1, self.places(ids)).amax(0).clamp_min(1.0)


class CorrectedSoftmax(Shared, nn.Module):
    """The softmax above over the batch of all ranks, a loss a row.

    Args:
        temperature: tau.
        drop_same: leave the batch's other copies of a row's item out of its negatives (the paper keeps them).

    >>> z = torch.eye(2)
    >>> round(CorrectedSoftmax(1.0)(z, z, torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))[0].item(), 4)
    0.3133
    """

    def __init__(self, temperature: float, *, drop_same: bool = False) -> None:
        super().__init__()
        self.temperature, self.drop_same = temperature, drop_same

    def forward(
        self,
        queries: Float[Tensor, "batch dim"],
        items: Float[Tensor, "columns dim"],
        ids: Int[Tensor, "columns"],
        probability: Float[Tensor, "columns"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """Row i belongs to item i; there may be further items behind the batch's. `probability` None: not corrected."""
        bias = None if probability is None else -probability.to(items).log()
        stats = contrast_stats(
            queries,
            items,
            scale=1.0 / self.temperature,
            positive=Diagonal(),
            col_bias=bias,
            exclude=SameLabel(ids[: len(queries)], ids) if self.drop_same else None,
            distributed=self.distributed,
            backend=self.backend,
        )
        if self.drop_same:  # the positive went with its copies
            return nn.functional.softplus(stats.lse - stats.positive)
        return stats.lse - stats.positive
