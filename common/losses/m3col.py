"""M3CoL: contrastive learning on mixed samples across modalities."""

from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from counterpoint.common.kernels import Weighted
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import beta, permutation, uniform
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["M3CoL", "MixCo", "SoftClip"]


class MixCo(InfoNCE):
    """Mixed rows should find both of their sources in the other modality (M3CoL's MixCo term).

        row i (embedding of b_i x_i + (1 - b_i) x_perm(i)):  target b_i at column i, 1 - b_i at column perm(i)
        L = (CE(rows) + CE(columns)) / 2

    Columns use the transposed targets as they are (their mass b_j + 1 - b_{perm^-1(j)} need not be 1), as in the
    official code. A fixed point of perm gets mass 1 on itself (the code loses it).

    Call with mixed [batch, dim], other [batch, dim], perm [batch], mixing [batch]; mix inputs outside, never in place,
    and (with `distributed`) within each rank.

    Args:
        temperature: T (0.1).

    Source: Kumar et al. 2024. The whole of it, with heads and schedule, is `M3CoL`.

    >>> import torch
    >>> z, same = torch.eye(4), torch.ones(4)
    >>> round(MixCo(temperature=1.0)(z, z, perm=torch.tensor([1, 2, 3, 0]), mixing=same).item(), 4)   # InfoNCE
    0.7437
    """

    card = ObjectiveCard(
        paper="M3CoL 2024",
        needs="mixed inputs, their permutation and weights",
        engine="contrast_stats(columns), target_scores(Weighted)",
        status="official numbers",
        checked="official numbers",
    )

    def __init__(
        self,
        temperature: Temperature = 0.1,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)

    def forward(
        self,
        mixed: Float[Tensor, "batch dim"],
        other: Float[Tensor, "batch dim"],
        *,
        perm: Int[Tensor, "batch"],
        mixing: Float[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Mean over rows and columns."""
        here = torch.arange(len(mixed), device=mixed.device)
        mixing = torch.where(perm == here, 1.0, mixing.to(torch.promote_types(mixed.dtype, torch.float32)))
        back, first = torch.argsort(perm), self.own(mixed).start
        rows = Weighted(first + torch.stack([here, perm], 1), torch.stack([mixing, 1 - mixing], 1))
        columns = Weighted(first + torch.stack([here, back], 1), torch.stack([mixing, 1 - mixing[back]], 1))
        return self.mean(self.row_losses(mixed, other, targets=(rows, columns)))


class SoftClip(InfoNCE):
    """CLIP with targets from one modality's own similarities (M3CoL's later phase).

        t_ij = softmax_j(y_i . y_j / sharpness),   L = (CE(rows, t) + CE(columns, t)) / 2

    Both directions use the same row-normalised targets, and the gradient flows through them, as in the official code.
    The targets are an attention over the batch, of rows x dim numbers. Call with za, zb [batch, dim]; targets come
    from zb, or from `teacher`, which gets no gradient.

    Args:
        temperature: T (0.125).
        sharpness: temperature of the targets (0.125).

    Source: Kumar et al. 2024.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(SoftClip(temperature=1.0, sharpness=1e-3)(z, z).item(), 4)    # sharp targets: InfoNCE
    0.7437
    """

    card = ObjectiveCard(
        paper="M3CoL 2024",
        needs="pairs",
        engine="contrast_stats(columns), attention",
        status="official numbers",
        checked="official numbers",
    )

    def __init__(
        self,
        temperature: Temperature = 0.125,
        *,
        sharpness: float = 0.125,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)
        self.sharpness = sharpness

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        teacher: Float[Tensor, "batch features"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows and columns."""
        (a, b), scale = self.embed(za, zb), self.logit_scale()
        y = b if teacher is None else self.embed(teacher.detach())[0].to(b.dtype)
        stats = self.stats(a, b, scale=scale, columns=True)
        everyone = self.union(y)

        def aimed(keys: Tensor) -> Tensor:
            """sum_j t_ij key_j."""
            return scaled_dot_product_attention(
                y[None, None], everyone[None, None], self.union(keys)[None, None], scale=1 / self.sharpness
            )[0, 0]

        rows = stats.lse - scale * dots(a, aimed(b))
        columns = stats.columns.lse - scale * dots(b, aimed(a))
        return self.mean((rows + columns) / 2)


def _classifier(dim: int, hidden: int, classes: int, layers: int, dropout: float) -> nn.Sequential:
    """Linear layers with ReLU between, dropout behind the first."""
    widths = [dim] + [hidden] * (layers - 1) + [classes]
    parts: list[nn.Module] = []
    for place in range(layers):
        linear = nn.Linear(widths[place], widths[place + 1])
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        parts += [linear] + ([nn.ReLU()] if place < layers - 1 else [])
        if place == 0 and layers > 1 and dropout:
            parts.append(nn.Dropout(dropout))
    return nn.Sequential(*parts)


class M3CoL(Objective):
    """Multimodal classification with contrast of mixed samples: fusion head, unimodal heads, MixCo, later SoftClip.

        L = CE(fusion([f_1 ... f_M])) + sum_m CE(head_m(f_m)) + lam sum_m contrast(f_m, f_{m+1}),      f_{M+1} = f_1
        contrast: `MixCo` of mixed f_m in the first `switch` of the training, `SoftClip` afterwards

    A row is mixed, b f_i + (1 - b) f_perm(i) with b ~ Beta(alpha, alpha), with probability `mixed`; the others stay.
    Say how far the training is at every epoch: `loss.set_progress(epoch / epochs)`. In the first part of the released
    code the partner f_{m+1} is its mixture too, since both are mixed in place before they are compared: `alias=True`.
    At inference `predict` gives the fusion head's logits alone.

    Call with one f_m [batch, dim_m] per modality (raw; widths equal, as they are compared) and label [batch]. With
    `distributed` rows are mixed within each rank.

    Args:
        dims: the modalities' widths.
        n_classes: number of classes.
        hidden, layers, dropout: of the heads.
        lam: weight of the contrast (0.1).
        alpha, mixed: of the mixing (0.15, 0.5).
        switch: share of the training with MixCo (0.33).
        unimodal: whether the unimodal heads are trained too.
        alias: see above.
        generator: source of the mixing.

    Raises `ValueError` for another number of modalities than `dims`.

    Source: Kumar et al. 2024; RaghavSinghal10/M3CoL at cb62969, model/model.py and model_med.py.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss = M3CoL((4, 4, 4), n_classes=3)
    >>> loss(*torch.randn(3, 6, 4), label=torch.tensor([0, 1, 2, 0, 1, 2])).item() > 0
    True
    """

    card = ObjectiveCard(
        paper="M3CoL 2024",
        needs="modalities' features and class labels; a generator",
        engine="as MixCo and SoftClip; heads of its own",
        status="official numbers",
        checked="official numbers (RaghavSinghal10/M3CoL cb62969), both phases, heads included",
    )
    normalizes = False

    def __init__(
        self,
        dims: Sequence[int],
        n_classes: int,
        *,
        hidden: int = 256,
        layers: int = 3,
        dropout: float = 0.0,
        lam: float = 0.1,
        alpha: float = 0.15,
        mixed: float = 0.5,
        switch: float = 0.33,
        unimodal: bool = True,
        alias: bool = False,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        own = {k: v for k, v in engine.items() if k != "normalize"}
        self.dims, self.n_classes, self.hidden, self.layers = tuple(dims), n_classes, hidden, layers
        self.dropout, self.lam, self.alpha, self.mixed = dropout, lam, alpha, mixed
        self.switch, self.unimodal, self.alias, self.generator = switch, unimodal, alias, generator
        self.fusion = _classifier(sum(dims), hidden, n_classes, layers, dropout)
        heads = [_classifier(d, hidden, n_classes, layers, dropout) for d in dims] if unimodal else []
        self.heads = nn.ModuleList(heads)
        self.mixco, self.softclip = MixCo(**own), SoftClip(**own)
        self.progress = 0.0

    def set_progress(self, progress: float) -> None:
        """How much of the training lies behind, from 0 to 1."""
        self.progress = progress

    def predict(self, *features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch n_classes"]:
        """Logits of the fusion head."""
        return self.fusion(torch.cat(features, -1))

    def forward(
        self,
        *features: Float[Tensor, "batch dim"],
        label: Int[Tensor, "batch"],
        perms: Int[Tensor, "batch modalities"] | None = None,
        mixings: Float[Tensor, "batch modalities"] | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum; its parts lie in `monitors`. `perms` and `mixings` replace the draw."""
        if len(features) != len(self.dims):
            raise ValueError(f"M3CoL was made for {len(self.dims)} modalities, got {len(features)}")
        z = self.embed(*features)
        fused = self.mean(F.cross_entropy(self.predict(*z), label, reduction="none"))
        alone = [F.cross_entropy(head(f), label, reduction="none") for head, f in zip(self.heads, z)]
        parts = {"fusion": fused, "unimodal": sum((self.mean(a) for a in alone), fused.new_zeros(()))}
        parts["contrast"] = self._contrast(z, perms, mixings)
        self.monitors.update({name: value.detach() for name, value in parts.items()})
        return parts["fusion"] + parts["unimodal"] + self.lam * parts["contrast"]

    def _contrast(self, z: tuple[Tensor, ...], perms: Tensor | None, mixings: Tensor | None) -> Float[Tensor, ""]:
        after = [*z[1:], z[0]]
        if self.progress >= self.switch:
            return torch.stack([self.softclip(f, g) for f, g in zip(z, after, strict=True)]).sum()
        draws = [self.draw(len(f), f) for f in z]
        perm = torch.stack([p for p, _ in draws], 1) if perms is None else perms
        share = torch.stack([b for _, b in draws], 1) if mixings is None else mixings.to(z[0].dtype)
        mixed = [share[:, m, None] * f + (1 - share[:, m, None]) * f[perm[:, m]] for m, f in enumerate(z)]
        partners = [*mixed[1:], mixed[0]] if self.alias else after
        terms = [
            self.mixco(f, g, perm=perm[:, m], mixing=share[:, m])
            for m, (f, g) in enumerate(zip(mixed, partners, strict=True))
        ]
        return torch.stack(terms).sum()

    @torch.no_grad()
    def draw(self, rows: int, like: Tensor) -> tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]:
        """With whom each row is mixed, and its own share."""
        share = beta(self.alpha, self.alpha, rows, generator=self.generator).to(like)
        kept = uniform(rows, generator=self.generator, like=like) > self.mixed
        return permutation(rows, self.generator, like.device), torch.where(kept, 1.0, share)
