"""How figures fall when inputs are corrupted or a modality is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.metrics.result import Result

Transform = Callable[[object], object]


def add_noise(x: Float[Tensor, "*shape"], severity: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Gaussian noise of `severity` times the sample's standard deviation."""
    return x + severity * x.std(correction=0) * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def hide(x: Float[Tensor, "*shape"], severity: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Single entries replaced by the sample's mean, each with probability `severity`: lost packets, dead pixels."""
    return torch.where(torch.rand(x.shape, generator=generator) < severity, x.mean(), x)


def cut_out(x: Float[Tensor, "*shape"], severity: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """One stretch of the longest axis, `severity` of its length, replaced by the sample's mean: a gap in recording."""
    axis = max(range(x.ndim), key=lambda a: x.shape[a])
    length = round(severity * x.shape[axis])
    start = int(torch.randint(x.shape[axis] - length + 1, (), generator=generator))
    out = x.clone()
    out.narrow(axis, start, length).fill_(x.mean())
    return out


def quantize(x: Float[Tensor, "*shape"], severity: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Rounded to steps of `severity` times the sample's standard deviation: few bits, strong compression."""
    step = severity * x.std()
    return (x / step).round() * step if step > 0 else x


#: Corruptions of one sample's tensor of any field: (tensor, severity, generator) -> tensor. Severity 0 changes nothing.
CORRUPTIONS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": add_noise,
    "hide": hide,
    "cut": cut_out,
    "quantize": quantize,
}


@dataclass(frozen=True)
class CorruptionSweep(Result):
    """Figure at each severity of each corruption; `relative_drop` is the mean loss as a share of what was to lose.

    relative drop = mean over severities of (clean - score) / (clean - chance): 0 unharmed, 1 down to chance.
    """

    clean: float
    chance: float
    severities: list[float]
    scores: dict[str, list[float]]
    relative_drop: dict[str, float]


def corruption_sweep(
    score: Callable[[Transform | None], float],
    corruptions: Mapping[str, Callable[[object, float], object]],
    severities: Sequence[float],
    *,
    chance: float = 0.0,
) -> CorruptionSweep:
    """Score the clean inputs, then every corruption at every severity.

    Args:
        score: called with None for clean inputs or with a function from input to corrupted input; it encodes, evaluates
            and returns one figure (higher is better).
        corruptions: name -> function of (input, severity). Seeds are the function's own business.

    >>> sweep = corruption_sweep(lambda t: 1.0 if t is None else t(1.0), {"fade": lambda x, s: x * (1 - s)}, [0.5, 1.0])
    >>> sweep.scores, sweep.relative_drop
    ({'fade': [0.5, 0.0]}, {'fade': 0.75})
    """
    if not severities:
        raise ValueError("a sweep needs at least one severity")
    clean = float(score(None))
    scores = {
        name: [float(score(lambda x, f=corrupt, s=severity: f(x, s))) for severity in severities]
        for name, corrupt in corruptions.items()
    }
    room = clean - chance
    drop = {
        name: sum(clean - v for v in values) / len(values) / room if room > 0 else float("nan")
        for name, values in scores.items()
    }
    return CorruptionSweep(clean, chance, [float(s) for s in severities], scores, drop)


@dataclass(frozen=True)
class MissingModality(Result):
    """Figure with every subset of the modalities ("a+b"), and the mean drop when each one alone is missing."""

    scores: dict[str, float]
    drop_without: dict[str, float]


def missing_modality(score: Callable[[frozenset[str]], float], modalities: Sequence[str]) -> MissingModality:
    """Score every non-empty subset of the modalities present at test time.

    >>> missing_modality(lambda kept: float(len(kept)), ["s1", "s2"]).drop_without
    {'s1': 1.0, 's2': 1.0}
    """
    if not 1 <= len(modalities) <= 8:
        raise ValueError(f"between one and eight modalities can be left out in turn, got {len(modalities)}")
    scores = {}
    for size in range(len(modalities), 0, -1):
        for kept in combinations(modalities, size):
            scores["+".join(kept)] = float(score(frozenset(kept)))
    full = scores["+".join(modalities)]
    drops = {}
    for name in modalities:
        rest = "+".join(m for m in modalities if m != name)
        if rest:
            drops[name] = full - scores[rest]
    return MissingModality(scores, drops)
