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

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from counterpoint.common.kernels import Diagonal, Self, topk_scores
from counterpoint.common.losses import NTXent, Shared
from counterpoint.common.trainers import Assets, Datasets
from counterpoint.recsys.contrast_configs import MCLRecConfig
from counterpoint.recsys.data.sequences import Prefixes
from counterpoint.recsys.models.objectives import next_item_loss
from counterpoint.recsys.sequential import SequenceRecommender

VIEWS = ("first", "second")


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


class MCLRec(SequenceRecommender):
    """Encoder and augmenters in turn (see the module's text)."""

    Config = MCLRecConfig

    def __init__(self, config: MCLRecConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.contrast = ContrastTerms(config.dim, config.gamma, config.temperature)
        self.contrasted = bool(config.views or config.meta)
        self._augmenting = False
        self.loss_weights = {"views": config.views, "meta": config.meta} if self.contrasted else {}

    def datasets(self) -> Datasets:
        config = self.config
        shares = (config.crop, config.mask, config.reorder) if self.contrasted else None
        return Datasets(Prefixes(self.data, config.length, shares), val=self._asked("val"))

    def optimizer_parts(self) -> tuple[tuple[str, ...], ...]:
        return ("encoder",), ("contrast",)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """h of the prefixes as `user`, and of their altered views; of these alone in the augmenters' step."""
        found = {} if self._augmenting else {"user": self.encoder(batch["sequence"], batch["lengths"])}
        if self.contrasted:
            found |= {name: self.encoder(batch[name], batch[f"{name}_lengths"]) for name in VIEWS}
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's terms."""
        table = self.encoder.item_embedding.weight
        terms = {"next_item": next_item_loss(embeddings["user"], table, batch["item"])}
        if not self.contrasted:
            return terms
        views = [embeddings[name] for name in VIEWS]
        return terms | {"views": self.contrast.between_views(*views), "meta": self.contrast.meta(*views)}

    def augmenter_losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The augmenters' loss."""
        return {"augmenters": self.contrast.meta(*(embeddings[name] for name in VIEWS))}

    def step(self, batch: dict[str, Any]) -> Any:
        encoder, augmenters = self.optimizers()
        found = self.gradients(batch, only=[encoder])
        self.update(encoder)
        if self.config.meta:
            self._augmenting = True
            try:
                terms, _ = self.gradients(batch, self.augmenter_losses, only=[augmenters])
            finally:
                self._augmenting = False
            self.update(augmenters)
            self.record({f"train/{name}": value for name, value in terms.items()})
        if self.config.encoder_updates > 1:
            self.gradients(batch, only=[encoder])
            self.update(encoder)
        return found
