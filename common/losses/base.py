"""What all objectives share: normalisation, precision, the engine's settings, means over rows."""

import inspect
from typing import Any, ClassVar, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from counterpoint.common.kernels import (
    ContrastStats,
    Diagonal,
    SameLabel,
    Self,
    contrast_stats,
    merge,
    target_scores,
    topk_scores,
    unit,
)
from counterpoint.common.kernels.spec import Target
from counterpoint.common.losses.arguments import check_arguments
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings, Shared

__all__ = ["Objective", "dots", "row_mean", "softplus_gap"]


class Objective(Shared, nn.Module):
    """Base of every objective: a module called on embeddings that returns a scalar, the mean over rows, in nats.

    Args:
        normalize: divide every embedding by its norm first (`False`: the caller has done so, or wants raw scores).
            Objectives of raw numbers (logits, maps, predictions) do not take it.
        distributed: "none" (columns are this process's), "gather", "ring" or "auto" (columns are the union over all
            ranks, met in one of the two ways or the one that fits by size). The value is this rank's share: averaged
            over ranks, as DistributedDataParallel averages gradients, it is the value of the whole batch, however rows
            are shared out (see `Shared`), in training and in evaluation. Left out: as `engine_settings` says where the
            objective is called ("none" without it); `fit` says "auto" when it runs on several processes.
        backend: the engine's backend; left out: as `engine_settings` says, else "auto".

    Half-precision inputs are computed in float32 and autocast is switched off inside, so that a temperature of 0.01
    does not turn rounding into loss. An empty batch gives zero with a zero gradient. Numbers worth logging lie in
    `monitors` after each call (detached).
    """

    card: ClassVar[ObjectiveCard]
    normalizes: ClassVar[bool | None] = True
    """What `normalize` is by default; None: the inputs are raw by definition."""

    def __init__(self, **engine: Unpack[EngineSettings]):
        super().__init__(engine.get("distributed"), backend=engine.get("backend"))
        unknown = set(engine) - set(EngineSettings.__annotations__)
        if self.normalizes is None:
            unknown |= {"normalize"} & set(engine)
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no argument {', '.join(sorted(unknown))}")
        self.normalize = bool(engine.get("normalize", self.normalizes))
        self.monitors: dict[str, Tensor] = {}

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """What the constructor takes, the engine's settings by their names.

        >>> from counterpoint.common.losses import NTXent
        >>> list(NTXent.options())
        ['temperature', 'normalize', 'distributed', 'backend']
        """
        kind = inspect.Parameter.KEYWORD_ONLY
        left_out = set() if cls.normalizes is not None else {"normalize"}
        engine = [name for name in EngineSettings.__annotations__ if name not in left_out]
        own = {n: p for n, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_KEYWORD}
        return {**own, **{name: inspect.Parameter(name, kind, default=None) for name in engine}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            check_arguments(self, args, kwargs)
        device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return super().__call__(*args, **kwargs)

    def embed(self, *embeddings: Float[Tensor, "... dim"]) -> tuple[Float[Tensor, "... dim"], ...]:
        """The embeddings in at least float32, with unit norm where `normalize` is set."""
        wide = [z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in embeddings]
        return tuple(unit(z, dim=-1) for z in wide) if self.normalize else tuple(wide)

    def stats(self, q: Tensor, k: Tensor, **arguments: Any) -> ContrastStats:
        """`contrast_stats` with this objective's backend, over the columns of all ranks when it is distributed."""
        return contrast_stats(q, k, backend=self.backend, distributed=self.distributed, **arguments)

    def local_stats(self, q: Tensor, k: Tensor, **arguments: Any) -> ContrastStats:
        """`contrast_stats` over columns every rank holds already (a queue, prototypes, private negatives)."""
        return contrast_stats(q, k, backend=self.backend, **arguments)

    def target(self, q: Tensor, k: Tensor, target: Target) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
        """`target_scores`: each row's target-weighted sum of raw scores, and the target's mass; columns as `stats`."""
        return target_scores(q, k, target, distributed=self.distributed)

    def local_target(self, q: Tensor, k: Tensor, target: Target) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
        """`target_scores` over columns every rank holds already, or over this rank's alone."""
        return target_scores(q, k, target)

    def best(self, q: Tensor, k: Tensor, n: int, **arguments: Any) -> tuple[Tensor, Tensor]:
        """`topk_scores`, columns as `stats`: values and positions within `union(k)`."""
        return topk_scores(q, k, n, distributed=self.distributed, **arguments)

    def two_views(
        self,
        a: Float[Tensor, "batch dim"],
        b: Float[Tensor, "batch dim"],
        *,
        scale: float | Tensor,
        group: Int[Tensor, "batch"] | None = None,
        keep_positive: bool = False,
        mean: bool = False,
    ) -> tuple[ContrastStats, ContrastStats]:
        """Statistics of the 2 B rows [a; b] against [a; b] without self (and without the positive unless kept).

        a x b is computed once for both directions: its columns are b's rows. `group` drops all samples with the row's
        id, the positive included. `.positive` holds the positive's logit in every case.
        """
        drop = Self() if group is None else SameLabel(group)
        cross = self.stats(
            a,
            b,
            scale=scale,
            positive=Diagonal(),
            exclude=None if keep_positive and group is None else drop,
            columns=True,
            mean=mean,
        )
        own_a = self.stats(a, a, scale=scale, exclude=drop, mean=mean)
        own_b = self.stats(b, b, scale=scale, exclude=drop, mean=mean)
        rows_a, rows_b = merge(cross, own_a), merge(cross.columns, own_b)
        rows_a.positive, rows_b.positive = cross.positive, cross.columns.positive
        return rows_a, rows_b

    def extra_repr(self) -> str:
        """The settings a reader of a log wants to see; of the objective's own tensors the value or the shape."""
        plain = {k: v for k, v in (vars(self) | self.given).items() if isinstance(v, int | float | str | tuple)}
        hidden = {"training", "call_super_init", "dump_patches"}
        shown = {k: repr(v) for k, v in plain.items() if not k.startswith("_") and k not in hidden}
        for name, t in (*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)):
            shown[name] = f"{t.item():.4g}" if t.dim() == 0 else str(list(t.shape))
        return ", ".join(f"{k}={v}" for k, v in shown.items())


def dots(a: Float[Tensor, "*rows dim"], b: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Row-by-row inner products."""
    return (a * b).sum(-1)


def row_mean(values: Float[Tensor, "*rows"], keep: Bool[Tensor, "*rows"] | None = None) -> Float[Tensor, ""]:
    """Mean over all rows; rows not kept (no positive, no negative) count as zero. No rows: zero."""
    if keep is not None:
        values = torch.where(keep, values, torch.zeros_like(values))
    return values.sum() / max(values.numel(), 1)


def softplus_gap(lse: Float[Tensor, "*rows"], positive: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """log(1 + exp(lse - positive)): the cross-entropy of a positive against negatives that do not contain it.

    Exact for rows without negatives (lse = -inf gives 0 with a zero gradient).
    """
    return F.softplus(lse - positive)
