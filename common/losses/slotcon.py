"""SlotCon: pixels grouped into semantic slots, consistently over views, and slots contrasted."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from counterpoint.common.kernels import Gibbs, Index
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SlotCon", "overlap"]


def overlap(
    maps: Float[Tensor, "batch dim h w"],
    box: Float[Tensor, "batch 4"] | None = None,
    flip: Bool[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch dim h w"]:
    """A crop's feature map cut to `box` and stretched to its old size, mirrored crops turned back.

    Of two crops the boxes name the part both show, (x1, y1, x2, y2) as fractions of each crop (of a mirrored crop: as
    it stands, after mirroring); the results then show the same place cell by cell. One bilinear sample per cell: RoI
    align for boxes inside the crop. Without a box: the whole map.

    >>> import torch
    >>> maps = torch.arange(4.0).view(1, 1, 1, 4)
    >>> overlap(maps, torch.tensor([[0.5, 0.0, 1.0, 1.0]])).flatten().tolist()      # the right half
    [1.75, 2.25, 2.75, 3.0]
    """
    batch, _, h, w = maps.shape
    box = maps.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(batch, 4) if box is None else box.to(maps.dtype)
    x, y = (
        box[:, axis, None] + (box[:, axis + 2] - box[:, axis])[:, None] * (box.new_tensor(range(n)) + 0.5) / n
        for axis, n in ((0, w), (1, h))
    )
    if flip is not None:
        x = torch.where(flip[:, None], x.flip(1), x)
    grid = torch.stack([x[:, None].expand(batch, h, w), y[:, :, None].expand(batch, h, w)], -1)
    return F.grid_sample(maps, 2 * grid - 1, padding_mode="border", align_corners=False)


def _predictor(dim: int, hidden: int) -> nn.Sequential:
    widths = [dim, hidden, hidden, dim]
    parts: list[nn.Module] = []
    for i in range(3):
        linear = nn.Linear(widths[i], widths[i + 1])
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        parts += [linear] + ([nn.BatchNorm1d(hidden), nn.GELU()] if i < 2 else [])
    return nn.Sequential(*parts)


class SlotCon(Objective):
    """Group pixels into prototypes consistently, and contrast the groups (SlotCon).

        d = norm(x) . norm(C),  the teacher's with its own prototypes C'
        grouping: mean over aligned pixels of CE( softmax((d'_2 - centre) / T_t), softmax(d_1 / T_s) )
        slots:    u_k = sum_n A_nk x_n / sum_n A_nk,   A = softmax_k(d / T_t) + 1e-6,  n: all pixels of the crop
                  2 T InfoNCE( norm(h(u_k)) ; norm(u'_k) ) of the slots active in both views
                  against all slots active in the teacher's view, of the whole batch
        L = weight (grouping_12 + grouping_21) + (1 - weight) (slots_12 + slots_21)

    A slot is active in a view when it is the best of some pixel. Scores are aligned (with `overlap`), features are not;
    slots pool raw features of whole crops. C' follows C (before each training call, `momentum`), the centre follows the
    teacher's mean scores (after it); both lie in the checkpoint.

    Call with student1, student2, teacher1, teacher2 [batch, dim, h, w]: raw projections of the two crops, the teacher's
    from the momentum encoder (detached here); box1, box2, flip1, flip2: what both crops show, as for `overlap`
    (default: they show the same). `momentum` of this step's prototypes, if it follows a schedule: the official run
    raises 0.99 to 1 by a cosine, for encoder and prototypes alike.

    Args:
        dim, prototypes: 256, 256 for COCO (2048 for ImageNet).
        student_temperature, teacher_temperature, temperature: 0.1, 0.07, 0.2.
        weight: 0.5. momentum, centre_momentum: 0.99, 0.9.
        predictor: h; default the paper's three layers of width `hidden` (4096) with batch normalisation and GELU.

    Source: Wen et al. 2022, official code.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss, x = SlotCon(dim=8, prototypes=3, hidden=16), torch.randn(2, 8, 4, 4)
    >>> loss(x, x, x, x).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="SlotCon 2022",
        needs="dense maps, the crops' overlap, momentum encoder; own prototypes",
        engine="contrast_stats, target_scores(Gibbs)",
        status="official numbers",
        checked="official numbers (CVMI-Lab/SlotCon 30ff33d), states included",
    )
    normalizes = None

    def __init__(
        self,
        dim: int = 256,
        prototypes: int = 256,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        temperature: float = 0.2,
        weight: float = 0.5,
        momentum: float = 0.99,
        centre_momentum: float = 0.9,
        predictor: nn.Module | None = None,
        hidden: int = 4096,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.prototypes = nn.Parameter(unit(torch.randn(prototypes, dim), dim=1))
        self.register_buffer("teacher_prototypes", self.prototypes.detach().clone())
        self.register_buffer("centre", torch.zeros(prototypes))
        self.predictor = _predictor(dim, hidden) if predictor is None else predictor
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.temperature, self.weight = temperature, weight
        self.momentum, self.centre_momentum = momentum, centre_momentum

    def forward(
        self,
        student1: Float[Tensor, "batch dim h w"],
        student2: Float[Tensor, "batch dim h w"],
        teacher1: Float[Tensor, "batch dim h w"],
        teacher2: Float[Tensor, "batch dim h w"],
        *,
        box1: Float[Tensor, "batch 4"] | None = None,
        box2: Float[Tensor, "batch 4"] | None = None,
        flip1: Bool[Tensor, "batch"] | None = None,
        flip2: Bool[Tensor, "batch"] | None = None,
        momentum: float | None = None,
    ) -> Float[Tensor, ""]:
        """Weighted sum of grouping and slot contrast, both ways; parts in `monitors`."""
        s1, s2, t1, t2 = self.embed(student1, student2, teacher1.detach(), teacher2.detach())
        if self.training:
            m = self.momentum if momentum is None else momentum
            self.teacher_prototypes = torch.lerp(self.prototypes.detach(), self.teacher_prototypes, m)
        c, c_t = (unit(p.to(s1.dtype), dim=1) for p in (self.prototypes, self.teacher_prototypes))
        places = ((box1, flip1), (box2, flip2))
        # Alignment is linear in the map: aligning unit features aligns the scores of all prototypes at once.
        a1, a2, b1, b2 = (
            overlap(unit(x, dim=1), *place).flatten(2).mT.flatten(0, 1)
            for x, place in zip((s1, s2, t1, t2), places + places, strict=True)
        )
        grouping = self._group(a1, b2, c, c_t) + self._group(a2, b1, c, c_t)
        q1, q2, k1, k2 = (self._pool(x, p) for x, p in ((s1, c), (s2, c), (t1, c_t), (t2, c_t)))
        slots = self._slots(*q1, *k2) + self._slots(*q2, *k1)
        if self.training:
            self._recentre(torch.cat([t1, t2]), c_t)
        self.monitors.update(grouping=grouping.detach(), slots=slots.detach())
        return self.weight * grouping + (1 - self.weight) * slots

    def _group(self, student: Tensor, teacher: Tensor, c: Tensor, c_t: Tensor) -> Float[Tensor, ""]:
        scale = 1 / self.student_temperature
        bias = -self.centre.to(c.dtype) / self.teacher_temperature
        target = Gibbs(teacher, c_t, scale=1 / self.teacher_temperature, col_bias=bias)
        score, _ = self.local_target(student, c, target)
        return self.mean(self.local_stats(student, c, scale=scale).lse - scale * score)

    def _pool(self, maps: Tensor, c: Tensor) -> tuple[Float[Tensor, "batch k dim"], Bool[Tensor, "batch k"]]:
        """Each prototype's slot, and whether it is the best of some pixel."""
        # The assignment maps are what is pooled with, so they exist: pixels x prototypes of each image.
        scores = unit(maps.flatten(2), dim=1).mT @ c.T
        weight = torch.softmax(scores / self.teacher_temperature, -1) + 1e-6
        slots = (weight / weight.sum(1, keepdim=True)).mT @ maps.flatten(2).mT
        return slots, torch.zeros_like(scores[:, 0], dtype=torch.bool).scatter(1, scores.argmax(-1), True)

    def _slots(self, q: Tensor, q_active: Tensor, k: Tensor, k_active: Tensor) -> Float[Tensor, ""]:
        both, keys = q_active & k_active, unit(k[k_active], dim=-1)
        q = q[both]
        q = unit(self.predictor(q), dim=-1)
        place = (k_active.flatten().cumsum(0) - 1)[both.flatten()] + self.own(keys).start
        stats = self.stats(q, keys, scale=1 / self.temperature, positive=Index(place))
        return 2 * self.temperature * self.mean_over((stats.lse - stats.positive).sum(), len(q))

    @torch.no_grad()
    def _recentre(self, teacher: Tensor, c: Tensor) -> None:
        pixels = unit(teacher, dim=1).flatten(2).mT.flatten(0, 1)
        total, count = self.summed(pixels.sum(0)), self.count(pixels)
        if count:
            self.centre = torch.lerp((c @ total / count).to(self.centre), self.centre, self.centre_momentum)
