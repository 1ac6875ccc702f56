"""Whole volumes through a finetuned head, window by window, and how well the labels cover the truth in the patient.

The class of every voxel of the file itself: a volume is brought to the recipe's spacing as a whole, MONAI's sliding
windows of the recipe's size (overlap 1/4, Gaussian weights) give class probabilities, those are interpolated linearly
back to the file's grid, and the likeliest class counts. Long volumes go slab by slab, so that memory does not grow with
the number of slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.metrics import Interval
from counterpoint.common.metrics.bootstrap import bootstrap_columns
from counterpoint.common.metrics.result import Result
from counterpoint.common.trainers.tasks import at_places
from counterpoint.medical.configs import RecipeConfig
from counterpoint.medical.scenes import unit_scale
from counterpoint.medical.volume import Volume, canonical, to_recipe

BUDGET = 1 << 30
"""Bytes of class probabilities that are held at once."""
MAPS = "segmentation"


@dataclass(frozen=True)
class Segmented(Result):
    """How well segmented volumes cover their label maps, on the files' own grids, in millimetres.

    Attributes:
        metrics: `Dice` (mean over labels), `Dice of label k`, `surface of label k` (average symmetric surface distance,
            mm), `hausdorff 95 of label k` (mm); means over volumes that have the label, in truth or in prediction.
        chance: Dice of the shape prior: at every place of the recipe's grid the label that most of the training maps
            have there, laid over each volume without looking at it.
        intervals: 95 % bootstrap intervals over patients.
        notes: how many volumes; distances count only where both have the label, and how often one had not.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)


Predict = Callable[[Float[Tensor, "batch x y z"]], Float[Tensor, "batch classes x y z"]]


def head_of(system: Any) -> Predict:
    """[batch, x, y, z] values in the recipe's form -> [batch, classes, x, y, z] logits of a finetuned dense head."""
    modality = system.config.modality

    def predict(x: Tensor) -> Tensor:
        logits = system.embed({modality: x})["logits"]
        return at_places(logits, x.shape[1:]).movedim(-1, 1)

    return predict


@torch.no_grad()
def segment_volume(
    volume: Volume,
    recipe: RecipeConfig,
    predict: Predict,
    *,
    scaled: bool = False,
    budget: int = BUDGET,
    overlap: float = 0.25,
    device: torch.device | str = "cpu",
) -> Int[np.ndarray, "x y z"]:
    """The likeliest class of every voxel of a volume, on the volume's own grid.

    Args:
        scaled: the system reads values in 0..1 of the volume's own range (`gemini`).
        budget: bytes of probabilities held at once; longer volumes go in slabs along the body.
        overlap: of neighbouring windows, in shares of a window.
    """
    from monai.inferers.utils import sliding_window_inference

    turned = canonical(volume)
    spacing = np.array(turned.spacing)
    # As many places as lie within the volume: beyond its ends is air, which must not bleed into it.
    extent = np.floor((np.array(turned.data.shape) - 1) * spacing / np.array(recipe.spacing) + 1e-6).astype(int) + 1
    size = tuple(int(n) for n in np.maximum(extent, recipe.size))
    whole = to_recipe(turned, replace(recipe, size=size))
    data = torch.from_numpy(unit_scale(whole.data) if scaled else np.ascontiguousarray(whole.data, dtype=np.float32))
    # Where the file's voxels lie on the recipe's grid: both have the same axes, so each axis by itself.
    factor = np.array(recipe.spacing) / spacing
    first = (np.array(turned.data.shape) - 1) / 2 - factor * (np.array(size) - 1) / 2
    at = [(np.arange(n) - first[i]) / factor[i] for i, n in enumerate(turned.data.shape)]
    window, depth = recipe.size, recipe.size[2]
    outside = 0.0 if scaled else float(recipe.outside)
    out = np.zeros(turned.data.shape, dtype=np.int16)
    start, step = 0, size[2]
    while start < size[2]:
        if start == 0:
            probe = predict(data[None, : window[0], : window[1], :depth].to(device))
            planes = max(budget // (4 * probe.shape[1] * size[0] * size[1]), 2 * depth)
            step = size[2] if planes >= size[2] else planes - 2 * (depth // 2)
        low, high = max(start - depth // 2, 0), min(start + step + depth // 2, size[2])
        logits = sliding_window_inference(
            data[None, None, :, :, low:high], window, 1, lambda x: predict(x[:, 0]), overlap, mode="gaussian",
            cval=outside, sw_device=device, device="cpu",
        )  # fmt: skip
        probability = logits[0].float().softmax(0).numpy()
        # The file's planes nearest to this slab.
        near = np.clip(np.rint(at[2]), 0, size[2] - 1)
        mine = np.flatnonzero((near >= start) & (near < start + step))
        if len(mine):
            out[:, :, mine] = _likeliest(probability, at[0], at[1], at[2][mine] - low)
        start += step
    return _turned_back(out, volume)


def _likeliest(probability: np.ndarray, *at: np.ndarray) -> np.ndarray:
    """The class with the highest probability at the places, interpolated linearly axis by axis."""
    best, said = None, None
    for label, values in enumerate(probability):
        for axis, places in enumerate(at):
            places = np.clip(places, 0, values.shape[axis] - 1)
            low = np.floor(places).astype(int)
            high = np.minimum(low + 1, values.shape[axis] - 1)
            share = (places - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
            values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
        if best is None:
            best, said = values, np.zeros(values.shape, dtype=np.int16)
        else:
            more = values > best
            best, said = np.where(more, values, best), np.where(more, np.int16(label), said)
    assert said is not None
    return said


def _turned_back(data: np.ndarray, volume: Volume) -> np.ndarray:
    """RAS voxels in the order of the file that they came from."""
    from nibabel import orientations

    turn = orientations.ornt_transform(
        orientations.axcodes2ornt(("R", "A", "S")), orientations.io_orientation(volume.affine)
    )
    return np.ascontiguousarray(orientations.apply_orientation(data, turn))


def coverage(
    found: Int[np.ndarray, "x y z"],
    truth: Int[np.ndarray, "x y z"],
    spacing: Sequence[float],
    labels: Sequence[int],
    distances: bool = True,
) -> dict[str, float]:
    """Dice and surface distances (mm) of every label by MONAI's metrics; NaN where neither, or for distances only one,
    has the label.

    >>> ball = np.zeros((8, 8, 8), dtype=int); ball[2:6, 2:6, 2:6] = 1
    >>> coverage(ball, np.roll(ball, 1, 0), (2.0, 1.0, 1.0), [1])["Dice of label 1"]
    0.75
    """
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    figures: dict[str, float] = {}
    for label in labels:
        a, b = (torch.from_numpy(x == label)[None, None] for x in (found, truth))
        here, there = bool(a.any()), bool(b.any())
        dice = float(compute_dice(a.float(), b.float(), ignore_empty=False)) if here or there else float("nan")
        figures[f"Dice of label {label}"] = dice
        if distances:
            options = {"include_background": True, "spacing": [float(s) for s in spacing]}
            both = here and there
            figures[f"surface of label {label}"] = (
                float(compute_average_surface_distance(a, b, symmetric=True, **options)) if both else float("nan")
            )
            figures[f"hausdorff 95 of label {label}"] = (
                float(compute_hausdorff_distance(a, b, percentile=95, **options)) if both else float("nan")
            )
    known = [v for k, v in figures.items() if k.startswith("Dice") and np.isfinite(v)]
    return {"Dice": float(np.mean(known)) if known else float("nan"), **figures}


def shape_prior(maps: Sequence[Int[Tensor, "x y z"]], classes: int) -> Int[Tensor, "x y z"]:
    """At every place the label that most of the maps have there; -1 (unknown) has no voice.

    >>> shape_prior([torch.tensor([[[0, 1]]]), torch.tensor([[[1, 1]]]), torch.tensor([[[0, -1]]])], 2).tolist()
    [[[0, 1]]]
    """
    votes = torch.zeros(classes, *maps[0].shape, dtype=torch.int32)
    for labels in maps:
        for k in range(classes):
            votes[k] += labels == k
    return votes.argmax(0)


def score_segmented(
    rows: Sequence[Mapping[str, float]],
    prior: Sequence[Mapping[str, float]],
    groups: Sequence[str],
    n_boot: int = 1000,
    seed: int = 0,
) -> Segmented:
    """Means over volumes with intervals over patients, of what `coverage` gives of each."""
    columns = {k: torch.tensor([row[k] for row in rows], dtype=torch.float64) for k in rows[0]}
    notes = [f"{len(rows)} volumes; distances in mm on the files' own grids, where both truth and prediction have it"]
    for name in [k for k in columns if k.startswith("surface")]:
        label = name.removeprefix("surface of ")
        lone = int((columns[f"Dice of {label}"].eq(0) & columns[name].isnan()).sum())
        if lone:
            notes.append(f"{label}: missing in truth or in prediction alone in {lone} volumes (Dice 0, no distance)")
    columns = {k: v for k, v in columns.items() if v.isfinite().any()}
    intervals: dict[str, Interval] = {}
    for name, values in columns.items():
        seen = values.isfinite()
        units = [g for g, s in zip(groups, seen.tolist()) if s]
        intervals |= bootstrap_columns({name: values[seen]}, units, n=n_boot, seed=seed)
    chance = {
        k: float(np.nanmean([row[k] for row in prior]))
        for k in intervals
        if prior and k in prior[0] and np.isfinite([row[k] for row in prior]).any()
    }
    return Segmented({k: i.value for k, i in intervals.items()}, chance, intervals, notes)


def prior_on(volume: Volume, prior: np.ndarray, recipe: RecipeConfig) -> np.ndarray:
    """A map on the recipe's grid laid over a volume's own grid, about its centre; 0 outside."""
    from scipy.ndimage import affine_transform

    turned = canonical(volume)
    factor = np.array(turned.spacing) / np.array(recipe.spacing)
    first = (np.array(prior.shape) - 1) / 2 - factor * (np.array(turned.data.shape) - 1) / 2
    made = affine_transform(prior.astype(np.int16), factor, offset=first, output_shape=turned.data.shape, order=0)
    return _turned_back(made, volume)


def file_of(name: str, folder: Path) -> Path:
    """Where a volume's label map is written."""
    from counterpoint.common.data.names import file_name

    return folder / MAPS / f"{file_name(name)}.nii.gz"
