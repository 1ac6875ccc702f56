"""Token interactions as a cooperative game: coalition values and the Banzhaf interaction."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.losses.draws import uniform

__all__ = ["banzhaf_interaction", "coalition_value"]


def coalition_value(
    similarity: Float[Tensor, "*batch n m"], present: Bool[Tensor, "coalitions players"]
) -> Float[Tensor, "coalitions *batch"]:
    """Value of a coalition of tokens: (mean over all n of the best present partner, 0 where absent, and back) / 2.

    `present` marks, per coalition, the n tokens of one side, then the m of the other. An absent token, or one without a
    present partner, contributes nothing.
    """
    n, m = similarity.shape[-2:]
    shape = present.shape[:-1] + (1,) * (similarity.dim() - 2)
    left = present[..., :n].reshape(*shape, n, 1)
    right = present[..., n:].reshape(*shape, 1, m)
    pairs = torch.where(left & right, similarity, -torch.inf)
    rows, columns = pairs.amax(-1), pairs.amax(-2)
    rows = torch.where(torch.isinf(rows), 0.0, rows)
    columns = torch.where(torch.isinf(columns), 0.0, columns)
    return (rows.mean(-1) + columns.mean(-1)) / 2


@torch.no_grad()
def banzhaf_interaction(
    similarity: Float[Tensor, "*batch n m"],
    *,
    samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch n m"]:
    """Banzhaf interaction of every token pair (t, u) across the two sides.

        I(t, u) = mean over coalitions S without t, u of  v(S + t + u) - v(S + t) - v(S + u) + v(S)
                = 4 mean over all coalitions S of  sign_t(S) sign_u(S) v(S),     sign = +1 if present, -1 if absent

    `samples=None` enumerates all 2^(n + m) coalitions (n + m <= 16); otherwise coalitions are drawn with every token
    present with probability one half: an unbiased estimate, whatever their number. (The released estimator of HBI takes
    the mean of another difference: v(S + t + u) there restores the score of the pair alone, and the weights of the
    tokens pass through the softmax twice.)

    >>> import torch
    >>> banzhaf_interaction(torch.ones(1, 1)).item()      # two tokens, worth 1 together and nothing alone
    1.0
    """
    n, m = similarity.shape[-2:]
    players = n + m
    if samples is None:
        if players > 16:
            raise ValueError(f"exact enumeration takes at most 16 tokens, got {players}; give `samples`")
        codes = torch.arange(2**players, device=similarity.device)
        present = (codes[:, None] >> torch.arange(players, device=similarity.device) & 1).bool()
    else:
        present = uniform(samples, players, generator=generator, like=similarity) < 0.5
    total = torch.zeros_like(similarity)
    for part in present.split(1024):
        sign = part.to(similarity.dtype) * 2 - 1
        values = coalition_value(similarity, part)
        total += torch.einsum("sn,sm,s...->...nm", sign[:, :n], sign[:, n:], values)
    return 4 * total / len(present)
