"""MDiCo's parts and heads: what sensors share, what each has of its own, and what both must tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from counterpoint.common.losses import NTXent
from counterpoint.common.losses.sharing import Shared

PARTS = ("shared", "specific", "unused")
Parts = Mapping[str, Mapping[str, Tensor]]


class ChipEncoder(nn.Module):
    """Four convolution stages, each halving the side, and the mean over what is left."""

    def __init__(self, bands: int, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        widths = [bands, width, 2 * width, 2 * width, dim]
        stages = []
        for before, after in pairwise(widths):
            stages += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*stages)

    def forward(self, x: Float[Tensor, "batch bands rows columns"]) -> Float[Tensor, "batch dim"]:
        return self.body(x).mean((2, 3))


class SharedPart(nn.Module):
    """The common encoder's output, brought to half its width: Linear, batch norm, ReLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim // 2), nn.BatchNorm1d(dim // 2), nn.ReLU())

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch half"]:
        return self.layers(x)


class MDiCoHeads(nn.Module):
    """The heads on the parts, and the four terms of the loss.

    Args:
        sensors: their names, in the order of their class numbers.
        half: width of each part.
        classes: of the task.
        temperature: of the contrast.
        released: the second sensor classifier reads the shared part, as in the released code.
    """

    def __init__(self, sensors: Sequence[str], half: int, classes: int, temperature: float, released: bool) -> None:
        super().__init__()
        self.sensors, self.released = tuple(sensors), released
        self.main = nn.ModuleDict({s: nn.Linear(2 * half, classes) for s in sensors})
        self.auxiliary = nn.Linear(half, classes)
        self.sensor_of_specific = nn.Linear(half, len(self.sensors))
        self.sensor_of_unused = nn.Linear(half, len(self.sensors))
        self.contrast = NTXent(temperature)
        self.batch = Shared()

    def predict(self, parts: Parts) -> dict[str, Float[Tensor, "batch classes"]]:
        """Logits of the task by each sensor alone."""
        return {s: self.main[s](torch.cat([p["specific"], p["shared"]], -1)) for s, p in parts.items()}

    def terms(self, parts: Parts, target: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """The four terms, each a mean over the batch (of all ranks); rows whose target is -1 have no task.

        `contrast` is summed over ordered pairs of sensors, as in the official code: with two it is twice NT-Xent.
        """
        predicted, known = self.predict(parts), target >= 0
        number = self.batch.summed(known.sum()).clamp_min(1)

        def task(logits: Tensor) -> Tensor:
            rows = cross_entropy(logits, target, reduction="none", ignore_index=-1)
            return rows.sum() * self.batch.world / number

        count = len(self.sensors)
        main = sum(task(predicted[s]) for s in self.sensors) / count
        auxiliary = sum((task(self.auxiliary(p["specific"])) + task(self.auxiliary(p["shared"]))) / 2
                        for p in parts.values()) / count  # fmt: skip
        contrast = sum(
            self.contrast(parts[a]["shared"], parts[b]["shared"]) for a in self.sensors for b in self.sensors if a != b
        )
        tell = []
        for place, sensor in enumerate(self.sensors):
            own = torch.full_like(target, place)
            other = parts[sensor]["shared" if self.released else "unused"]
            guesses = (self.sensor_of_specific(parts[sensor]["specific"]), self.sensor_of_unused(other))
            tell.append(sum(self.batch.mean(cross_entropy(g, own, reduction="none")) for g in guesses) / 2)
        return {"main": main, "auxiliary": auxiliary, "contrast": contrast, "discriminative": sum(tell) / count}
