r"""Phrase grounding: where in a volume a sentence is seen.

The similarity of volume and sentence, S = <v, t>, depends on the maps A of a stage of the image network; its share at
every place is

    M(p) = sum_c dS/dA_c(p) A_c(p)                                                                        (HiResCAM)

(Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", arXiv
2011.08891, 2020). VELVET-Med has places and words in one space: there M(p) is the mean over the sentence's words of
<word, patch p>. The map is interpolated to the recipe's grid, whose affine says where it lies in the patient.

The pointing game (Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016): a sentence is a hit
where the map's maximum lies in what the sentence is about, dilated by one voxel. Chance is the share of the body that
this is, and a floor that has not read the sentence points at the maximum of the mean map of all other sentences of the
volume.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Interval
from counterpoint.common.metrics.bootstrap import bootstrap_columns
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.vertical import Outcome
from counterpoint.medical.reported import report_sample
from counterpoint.medical.simulate import SENTENCES

MOST = 200
"""Sentences that are grounded; more are drawn from."""


@dataclass(frozen=True)
class Grounding(Result):
    """The pointing game of sentences that affirm a finding.

    Attributes:
        metrics: finding -> share of hits; `mean` over sentences; `without reading`: of the floor.
        chance: the share of the body's voxels that would be hits.
        intervals: 95 % bootstrap intervals over patients.
        notes: how many sentences.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)


def similarity_maps(system: Any, ct: Float[Tensor, "x y z"], texts: Sequence[str]) -> Float[Tensor, "texts x y z"]:
    """M of every sentence on the grid of `ct` (values in the system's recipe).

    Raises:
        InputError: the system has no report tower.
    """
    if not hasattr(system, "similarity_map"):
        raise InputError(f"{type(system).__name__} has no text tower: clip-ct and velvet-med ground sentences")
    device, data = next(system.parameters()).device, system.config.data
    samples = [report_sample(text, data, system.tokenizer) for text in texts]
    batch = {k: torch.stack([s[k] for s in samples]).to(device) for k in ("report", "sentence_of")}
    training = system.training
    system.eval()
    with torch.enable_grad():
        maps = system.similarity_map(ct[None].float().to(device), batch)
    system.train(training)
    whole = F.interpolate(maps.detach()[:, None].float(), size=ct.shape, mode="trilinear", align_corners=False)
    return whole[:, 0].cpu()


def hires_cam(maps: Sequence[Tensor], score: Float[Tensor, " texts"], size: Sequence[int]) -> Tensor:
    """[texts, *size] sum over channels of gradient times activation, summed over the given stages' maps.

    >>> a = torch.arange(8.0).view(1, 1, 2, 2, 2).requires_grad_()
    >>> hires_cam([a], (2 * a).sum()[None], (2, 2, 2)).flatten().tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]
    """
    found = []
    for one in score:
        grads = torch.autograd.grad(one, list(maps), retain_graph=True)
        parts = [(g * a).sum(1, keepdim=True) for g, a in zip(grads, maps)]
        found.append(
            sum(F.interpolate(p, size=tuple(size), mode="trilinear", align_corners=False) for p in parts)[0, 0]
        )
    return torch.stack(found)


def pointing(
    maps: Float[Tensor, "texts x y z"], masks: Float[Tensor, "texts x y z"], body: Float[Tensor, "x y z"]
) -> dict[str, list[float]]:
    """`hit`, `chance` and `without reading` of every sentence of a volume; places outside the body are not pointed at.

    >>> m = torch.zeros(1, 5, 5, 5); m[0, 2, 2, 2] = 1
    >>> pointing(m, (m > 0).float().roll(1, 1), torch.ones(5, 5, 5))["hit"]                  # one voxel off counts
    [1.0]
    """
    near = F.max_pool3d(masks[:, None].float(), 3, stride=1, padding=1)[:, 0].bool()
    inside = body.bool() | masks.any(0)
    shown = maps.masked_fill(~inside, -torch.inf)
    chance = (near & inside).flatten(1).float().sum(1) / inside.sum().clamp_min(1)
    blind = []
    for i in range(len(maps)):
        others = [j for j in range(len(maps)) if j != i]
        blind.append(_hit(shown[others].mean(0), near[i]) if others else float("nan"))
    return {
        "hit": [_hit(m, n) for m, n in zip(shown, near)], "chance": chance.tolist(), "without reading": blind
    }  # fmt: skip


def _hit(shown: Tensor, near: Tensor) -> float:
    """Whether the maximum lies in the mask; of several places that share it, their share in it."""
    top = shown == shown.max()
    return float((near & top).sum() / top.sum())


def protocols(run: OpenRun) -> Mapping[str, Result]:
    """The pointing game on the sentences that the data say what they are about (the phantom's `sentences.jsonl`)."""
    name, samples = "phrase grounding", run.samples()
    file = samples.manifest.folder.root / SENTENCES
    if not file.is_file() or "labels" not in samples.columns:
        return {name: NotRun(f"needs label maps and {SENTENCES} beside the manifest (`data simulate` writes both)")}
    places = {id_: i for i, id_ in enumerate(samples.ids)}
    if run.limit is not None:
        places = {id_: i for id_, i in places.items() if i < run.limit}
    told: dict[int, list[dict[str, Any]]] = defaultdict(list)
    seen = set()
    for line in file.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        key = (said["id"], said["finding"])
        if said["id"] in places and said["present"] and said["label"] > 0 and key not in seen:
            seen.add(key)  # of findings and impression the first
            told[places[said["id"]]].append(said)
    volumes = np.random.default_rng(run.seed).permutation(sorted(told)).tolist()
    rows: dict[str, list[Any]] = {k: [] for k in ("finding", "group", "hit", "chance", "without reading")}
    for place in volumes:
        if len(rows["hit"]) >= MOST:
            break
        sample = samples[place]
        masks = torch.stack([sample["labels"] == said["label"] for said in told[place]])
        kept = [i for i in range(len(masks)) if masks[i].any()]  # a tiny lesion can be lost on a coarse grid
        if not kept:
            continue
        maps = similarity_maps(run.system, sample["ct"], [told[place][i]["text"] for i in kept])
        found = pointing(maps, masks[kept], (sample["labels"] > 0).float())
        for key in found:
            rows[key] += found[key]
        rows["finding"] += [told[place][i]["finding"] for i in kept]
        rows["group"] += [samples.groups[place]] * len(kept)
    if not rows["hit"]:
        return {name: NotRun("no sentence affirms a finding that the label maps hold")}
    return {name: score_pointing(rows, run.n_boot, run.seed)}


def score_pointing(rows: Mapping[str, Sequence[Any]], n_boot: int = 1000, seed: int = 0) -> Grounding:
    """Hits by finding, of what `pointing` gives of every sentence."""
    kinds = np.array(rows["finding"])
    parts = {k: kinds == k for k in sorted(set(rows["finding"]))} | {"mean": np.ones(len(kinds), dtype=bool)}
    blind = np.array(rows["without reading"], dtype=np.float64)
    columns = {k: (np.array(rows["hit"])[m], m) for k, m in parts.items()}
    if np.isfinite(blind).any():
        columns["without reading"] = (blind[np.isfinite(blind)], np.isfinite(blind))
    intervals: dict[str, Interval] = {}
    chance = {}
    for name, (values, mask) in columns.items():
        groups = [g for g, m in zip(rows["group"], mask) if m]
        intervals |= bootstrap_columns({name: torch.from_numpy(values)}, groups, n=n_boot, seed=seed)
        chance[name] = float(np.array(rows["chance"])[mask].mean())
    notes = [
        f"{len(kinds)} sentences of {len(set(rows['group']))} patients; a hit: the map's maximum within the label of "
        "what the sentence is about, dilated by one voxel; `without reading`: the mean map of the volume's other "
        "sentences"
    ]
    return Grounding({k: i.value for k, i in intervals.items()}, chance, intervals, notes)


def ground_text(run: Path, file: Path, text: str, out: Path, checkpoint: str, hu: str) -> Outcome:
    """See `commands.ground`."""
    from counterpoint.common.trainers import load_run
    from counterpoint.medical.scans import read_scan
    from counterpoint.medical.volume import to_recipe, write_nifti

    if not text.strip():
        raise InputError("the text is empty; write a sentence, as in 'left pleural effusion'")
    system = load_run(run, checkpoint)
    made = to_recipe(read_scan(file, hu), system.config.data.recipe)
    maps = similarity_maps(system, torch.from_numpy(np.ascontiguousarray(made.data)), [text])[0].numpy()
    target = out if out.name.endswith((".nii", ".nii.gz")) else out.with_name(f"{out.name}.nii.gz")
    write_nifti(target, maps.astype(np.float32), made.affine)
    at = np.unravel_index(int(maps.argmax()), maps.shape)
    where = [round(float(v), 1) for v in (made.affine @ [*at, 1.0])[:3]]
    lines = (
        f"{target}: similarity of {text!r} at every voxel of the run's grid, in patient space",
        f"strongest at {where[0]:g} mm right, {where[1]:g} mm anterior, {where[2]:g} mm superior (RAS+)",
        "where a network looks is no finding: compare with the scan",
    )
    return Outcome({"text": text, "strongest": where, "maximum": float(maps.max())}, lines, {"map": target})
