"""Dense objectives: PixPro's pixel-to-propagation consistency and SlotCon's semantic slots."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal, Gibbs
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective, row_mean
from counterpoint.common.losses.cards import ObjectiveCard

__all__ = ["PixPro", "PixelPropagation", "SlotCon"]


class PixelPropagation(nn.Module):
    """Smooth each pixel by all similar pixels of its map: y_i = sum_j max(cos(x_i, x_j), 0)^power g(x_j), g a 1x1 conv.

    >>> import torch
    >>> PixelPropagation(8)(torch.randn(2, 8, 3, 3)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(self, dim: int, power: float = 2.0):
        super().__init__()
        self.transform, self.power = nn.Conv2d(dim, dim, 1), power

    def forward(self, x: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h w"]:
        """The propagated map."""
        cosine = unit(x.flatten(2), dim=1)
        similarity = (cosine.mT @ cosine).clamp_min(0) ** self.power
        return (self.transform(x).flatten(2) @ similarity.mT).view_as(x)


class PixPro(Objective):
    """Pixels of two crops that lie close in the image should agree, after propagation on one side (PixPro).

        A_ij = 1[ |c_i - c_j| / bin < threshold ],   bin = the larger diagonal of the two crops' feature cells
        L = -2 mean_n sum_ij A_ij cos(y_i, x'_j) / (sum A + 1e-6),   summed over both directions

    No negatives: per image a few dozen pixels squared, as plain products.

    Call with y1, y2 (online, propagated), x1, x2 (momentum maps, detached here) [batch, dim, h, w], centres1, centres2
    [batch, h, w, 2] (positions of the cells in the original image) and cell1, cell2 [batch] (cell diagonals).

    Args:
        threshold: 0.7 (our reading of the paper; the code's function has 0.5).

    Source: Xie et al. 2021.

    >>> import torch
    >>> y, centres = torch.ones(1, 4, 2, 2), torch.zeros(1, 2, 2, 2)
    >>> round(PixPro()(y, y, y, y, centres, centres, torch.ones(1), torch.ones(1)).item(), 4)
    -4.0
    """

    card = ObjectiveCard(
        paper="PixPro 2021",
        needs="dense maps, their positions, momentum encoder",
        engine="none (pixels of one image)",
        checked="written-out loops",
    )

    def __init__(self, *, threshold: float = 0.7, normalize: bool = True):
        super().__init__(normalize=normalize)
        self.threshold = threshold

    def forward(
        self,
        y1: Float[Tensor, "batch dim h w"],
        y2: Float[Tensor, "batch dim h w"],
        x1: Float[Tensor, "batch dim h w"],
        x2: Float[Tensor, "batch dim h w"],
        centres1: Float[Tensor, "batch h w 2"],
        centres2: Float[Tensor, "batch h w 2"],
        cell1: Float[Tensor, "batch"],
        cell2: Float[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Sum of both directions."""
        maps = self.embed(*(m.flatten(2).mT for m in (y1, y2, x1.detach(), x2.detach())))
        here, there = (c.flatten(1, 2).to(maps[0].dtype) for c in (centres1, centres2))
        near = (torch.cdist(here, there) / torch.maximum(cell1, cell2)[:, None, None] < self.threshold).to(
            maps[0].dtype
        )
        return self._agree(maps[0], maps[3], near) + self._agree(maps[1], maps[2], near.mT)

    @staticmethod
    def _agree(y: Tensor, x: Tensor, near: Tensor) -> Float[Tensor, ""]:
        agreement = ((y @ x.mT) * near).sum((1, 2)) / (near.sum((1, 2)) + 1e-6)
        return -2 * row_mean(agreement)


class SlotCon(Objective):
    """Group pixels into prototypes consistently, and contrast the groups (SlotCon).

        grouping: CE( softmax((x_t . C - centre) / T_t), softmax(x_s . C / T_s) ) per aligned pixel, both ways
        slots:    u_k = norm( sum_n A_nk x_n ),  A = softmax_k at T_t;  active: arg-max of some pixel in both views
                  2 T InfoNCE of the student's active slots against all active teacher slots of the batch
        L = weight grouping + (1 - weight) slots

    The centre is the moving average of the teacher's mean scores (kept in the checkpoint, updated in training).

    Call with student1, student2, teacher1, teacher2 [batch, pixels, dim]: features at aligned positions (the caller
    undoes the augmentations by RoI-align), teacher from the momentum encoder (detached here).

    Args:
        dim, prototypes: 256, 256 for COCO (2048 for ImageNet).
        student_temperature, teacher_temperature, temperature: 0.1, 0.07, 0.2.
        weight: 0.5. momentum: of the centre, 0.9.
        predictor: applied to the student's slots (default: none).

    Source: Wen et al. 2022; the numeric defaults and where A comes from are our reading.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss, x = SlotCon(dim=8, prototypes=3), torch.randn(2, 5, 8)
    >>> loss(x, x, x, x).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="SlotCon 2022",
        needs="aligned dense features, momentum encoder; own prototypes",
        engine="contrast_stats, target_scores(Gibbs)",
        checked="written-out equation (our reading)",
    )

    def __init__(
        self,
        dim: int = 256,
        prototypes: int = 256,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        temperature: float = 0.2,
        weight: float = 0.5,
        momentum: float = 0.9,
        predictor: nn.Module | None = None,
        normalize: bool = True,
        distributed: str = "none",
        backend: str = "auto",
    ):
        super().__init__(normalize=normalize, distributed=distributed, backend=backend)
        self.prototypes = nn.Parameter(unit(torch.randn(prototypes, dim), dim=1))
        self.predictor = nn.Identity() if predictor is None else predictor
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.temperature, self.weight, self.momentum = temperature, weight, momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(
        self,
        student1: Float[Tensor, "batch pixels dim"],
        student2: Float[Tensor, "batch pixels dim"],
        teacher1: Float[Tensor, "batch pixels dim"],
        teacher2: Float[Tensor, "batch pixels dim"],
    ) -> Float[Tensor, ""]:
        """Weighted sum of grouping and slot contrast (each the mean of both ways); parts in `monitors`."""
        s1, s2, t1, t2 = self.embed(student1, student2, teacher1.detach(), teacher2.detach())
        c = unit(self.prototypes.to(s1.dtype), dim=1)
        grouping = (self._group(s1, t2, c) + self._group(s2, t1, c)) / 2
        slots = (self._slots(s1, t2, c) + self._slots(s2, t1, c)) / 2
        if self.training:
            self._recentre(torch.cat([t1, t2]).flatten(0, 1), c.detach())
        self.monitors.update(grouping=grouping.detach(), slots=slots.detach())
        return self.weight * grouping + (1 - self.weight) * slots

    def _group(self, student: Tensor, teacher: Tensor, c: Tensor) -> Float[Tensor, ""]:
        s, t, scale = student.flatten(0, 1), teacher.flatten(0, 1), 1 / self.student_temperature
        bias = -self.centre.to(s.dtype) / self.teacher_temperature
        target = Gibbs(t, c.detach(), scale=1 / self.teacher_temperature, col_bias=bias)
        score, _ = self.local_target(s, c, target)
        return row_mean(self.local_stats(s, c, scale=scale).lse - scale * score)

    def _slots(self, student: Tensor, teacher: Tensor, c: Tensor) -> Float[Tensor, ""]:
        # The assignment maps are what is pooled with, so they exist: pixels x prototypes of each image.
        of_student = torch.softmax(student @ c.T / self.teacher_temperature, -1)
        of_teacher = torch.softmax((teacher @ c.T - self.centre.to(c.dtype)) / self.teacher_temperature, -1).detach()
        q = unit(self.predictor(of_student.mT @ student), dim=-1)
        k = unit(of_teacher.mT @ teacher, dim=-1)
        active = self._active(of_student) & self._active(of_teacher)
        q, k = q[active], k[active]
        # k carries only active slots; a slot's positive is the same prototype of the same image: the same position.
        stats = self.stats(q, k, scale=1 / self.temperature, positive=Diagonal())
        return 2 * self.temperature * self.mean_over((stats.lse - stats.positive).sum(), len(q))

    @staticmethod
    def _active(assignment: Float[Tensor, "batch pixels prototypes"]) -> Tensor:
        best = assignment.argmax(-1)
        return torch.zeros_like(assignment[:, 0], dtype=torch.bool).scatter(1, best, True)

    @torch.no_grad()
    def _recentre(self, teacher: Tensor, c: Tensor) -> None:
        total, count = self.summed(teacher.sum(0)), self.count(teacher)
        if count:
            self.centre = torch.lerp(self.centre, (c @ total / count).to(self.centre), 1 - self.momentum)
