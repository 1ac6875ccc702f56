"""Local contrast: the parts of a text against the places of a volume, as a score of every volume and every report.

GLoRIA (Huang et al., ICCV 2021) in the form that the vertical uses at two levels: each part t of a report looks at the
places v of a volume, and the report's score is a soft maximum over its parts,

    a_i(m, k) = sum_j softmax_j(t_ki.v_mj / T_l) t_ki.v_mj,      S(m, k) = T_a log mean_i exp(a_i(m, k) / T_a).

With one part and one place S is their inner product.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize


def local_scores(
    parts: Float[Tensor, "reports parts dim"],
    mask: Bool[Tensor, "reports parts"],
    places: Float[Tensor, "volumes places dim"],
    local: float = 0.25,
    aggregate: float = 0.2,
) -> Float[Tensor, "volumes reports"]:
    """S(m, k) of every volume and report; a report without parts scores 0 with every volume.

    >>> t, v = torch.eye(2)[:, None], torch.eye(2)[:, None]
    >>> local_scores(t, torch.ones(2, 1, dtype=torch.bool), v).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    t, v = normalize(parts.float(), dim=-1), normalize(places.float(), dim=-1)
    scores = torch.einsum("kid,mjd->mkij", t, v)
    looked = (torch.softmax(scores / local, dim=-1) * scores).sum(-1)  # [volumes, reports, parts]
    count = mask.sum(1)
    shown = (looked / aggregate).masked_fill(~mask[None], -torch.inf)
    empty = count == 0
    shown = shown.masked_fill(empty[None, :, None], 0.0)
    found = aggregate * (torch.logsumexp(shown, dim=-1) - count.clamp_min(1).log()[None])
    return found.masked_fill(empty[None], 0.0)


def score_contrast(
    scores: Float[Tensor, "volumes reports"], scale: float | Tensor, target: Float[Tensor, "volumes reports"]
) -> Float[Tensor, " batch"]:
    """Symmetric cross-entropy of a square table of scores: one loss a pair, the mean of both directions.

    `target` has rows that sum to one (equal reports share theirs), and is symmetric. The scores are no inner products,
    so this table is made whole; over several ranks each contrasts its own batch.

    >>> score_contrast(torch.zeros(2, 2), 1.0, torch.eye(2)).tolist()  # log 2
    [0.6931471824645996, 0.6931471824645996]
    """
    logits = scale * scores
    forth = -(target * logits.log_softmax(1)).sum(1)
    back = -(target * logits.T.log_softmax(1)).sum(1)
    return (forth + back) / 2
