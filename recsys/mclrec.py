r"""MCLRec: contrast of two altered item sequences and of what learnt augmenters make of them; a sequence's next item.

Qin, Yuan, Zhao, Fang, Xia, Yang, Zhao, Sheng, Zhou, "Meta-optimized contrastive learning for sequential
recommendation", SIGIR 2023.

A prefix s of a user's items is encoded (`h`) and its next item told from all others; two stochastic operators give two
altered prefixes with vectors :math:`h_1, h_2`, and two augmenters :math:`z_1 = w_1(h_1), z_2 = w_2(h_2)`. With
:math:`\ell` NT-Xent over the 2 B vectors of a pair of views (inner products, temperature 1):

.. math::
    L_{rec} &= -\log \mathrm{softmax}_j(h \cdot e_j)_{next} \\
    L_{cl1} &= \ell(h_1, h_2), \qquad L_{cl2} = \ell(h_1, z_2) + \ell(h_2, z_1) + \ell(z_1, z_2) \\
    R &= \sum_{(a, b)} \frac{1}{2B} \sum_i [\sigma^+_i - o^{min}_i]_+
        + \frac{1}{2B} \sum_i \frac{1}{2B - 2} \sum_j [o^{max}_i - \sigma^-_{ij}]_+

over the same three pairs, :math:`o^{min}_i = \min(\sigma^+_i, \max_j \sigma^-_{ij})` and :math:`o^{max}_i` their
maximum. The encoder descends :math:`L_{rec} + \lambda L_{cl1} + \beta (L_{cl2} + \gamma R)`, the augmenters
:math:`L_{cl2} + \gamma R` of the encoder's new weights, :math:`\gamma = 0.1`.

Readings and departures:

- R is worked out row by row, as in the official code (in the paper its minimum and maximum could be read as global).
- The official code updates the encoder twice a batch, before and after the augmenters, so that it takes two Adam steps
  where baselines take one. The default here is the paper's single update; `encoder_updates=2` is the official code.
- The official softmax has one more class, the padding item, whose vector is zero. Here there are items only.
- A masked item is hidden (nobody attends to it), as in the official code, which writes the padding item in its place.

Where its terms stand:

    encoder              recsys/models/sasrec.py: SequenceEncoder
    crop, mask, reorder  recsys/models/sequences.py: altered
    NT-Xent              common/losses/ntxent.py: NTXent
    R                    recsys/mclrec.py: SeparationRegularizer
    augmenters           recsys/mclrec.py: Augmenter
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from counterpoint.common.kernels import Diagonal, Self, topk_scores
from counterpoint.common.losses import NTXent, Shared


class Augmenter(nn.Module):
    """A learnt view of a vector: a narrow perceptron, its output at unit length.

    >>> Augmenter(64)(torch.randn(2, 64)).norm(dim=1).round(decimals=4).tolist()
    [1.0, 1.0]
    """

    def __init__(self, dim: int, widths: tuple[int, int] = (32, 16)) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(dim, widths[0]), nn.Linear(*widths), nn.Linear(widths[1], dim)

    def forward(self, h: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        return normalize(self.third(gelu(self.second(gelu(self.first(h))))), dim=-1)


class SeparationRegularizer(Shared):
    r"""R of one pair of views (see the module's text), over the rows of all ranks.

    A negative never exceeds :math:`o^{max}_i`, so that the second term is :math:`o^{max}_i` less the row's mean
    negative: the hardest negative and a sum are all that is needed, in value and gradient.

    >>> eye = torch.eye(3)
    >>> round(SeparationRegularizer()(eye, eye).item(), 4)      # positives 1, negatives 0: 1 - 0 + 1 - 0
    2.0
    """

    def __call__(self, a: Float[Tensor, "batch dim"], b: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        z, batch = torch.cat([a, b]), len(a)
        everyone = self.union(z)
        negatives = len(everyone) - 2
        if negatives < 1:
            return z.sum() * 0.0
        positive = (a * b).sum(-1).repeat(2)
        left_out = [Self(), Diagonal(batch), Diagonal(-batch)]
        hardest = topk_scores(z, z, 1, exclude=left_out, distributed=self.distributed)[1][:, 0]
        negative = (z * everyone[hardest]).sum(-1)
        mean = (z @ everyone.sum(0) - (z * z).sum(-1) - positive) / negatives
        low, high = torch.minimum(positive, negative), torch.maximum(positive, negative)
        return self.mean(positive - low + high - mean)


class ContrastTerms(nn.Module):
    """L_cl1, L_cl2 and R of a batch's two views.

    Args:
        dim: width of the encoder's vectors.
        gamma: weight of R within the augmenters' loss.
        temperature: of L_cl1; L_cl2 has 1, as in the official code.
    """

    def __init__(self, dim: int, gamma: float = 0.1, temperature: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.augment_1, self.augment_2 = Augmenter(dim), Augmenter(dim)
        self.views = NTXent(temperature, normalize=False)
        self.learnt = NTXent(1.0, normalize=False)
        self.separation = SeparationRegularizer()

    def between_views(self, h1: Float[Tensor, "batch dim"], h2: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """L_cl1."""
        return self.views(h1, h2)

    def meta(self, h1: Float[Tensor, "batch dim"], h2: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """L_cl2 + gamma R."""
        z1, z2 = self.augment_1(h1), self.augment_2(h2)
        pairs = ((h1, z2), (h2, z1), (z1, z2))
        contrast = sum(self.learnt(a, b) for a, b in pairs)
        return contrast + self.gamma * sum(self.separation(a, b) for a, b in pairs)
