"""`segment`: label maps of whole volumes by a finetuned head, as NIfTI in patient space; scored where truth is."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.data.samples import Part
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note, track
from counterpoint.common.vertical import Outcome, Rejected
from counterpoint.medical.reading import row_labels, row_volume
from counterpoint.medical.segmentation import (
    coverage,
    file_of,
    head_of,
    prior_on,
    score_segmented,
    segment_volume,
    shape_prior,
)
from counterpoint.medical.volume import write_nifti


def segment_split(
    run: Path, out: Path, manifest: Path | None, split: str, checkpoint: str, limit: int, seed: int = 0
) -> Outcome:
    """See `commands.segment`."""
    from counterpoint.common.runs.encode import check_apart, open_data
    from counterpoint.common.trainers import FinetuneSystem

    system, data = open_data(run, checkpoint, split, manifest)
    if not isinstance(system, FinetuneSystem) or system.config.task != "dense":
        raise InputError(f"{run}: needs a head of label maps (`finetune RUN --task dense --labels labels`)")
    check_apart(system)
    system.eval()
    samples = data[split]
    while isinstance(samples, Part):
        samples = samples.whole
    config, modality = system.base.config.data, system.config.modality
    recipe, classes = config.recipe, len(system.config.classes)
    frame = samples.frame.iloc[: limit or None]
    rows = [{k: _plain(v) for k, v in row.items()} for row in frame.to_dict("records")]
    prior = _prior(data, classes, recipe) if "labels" in frame.columns else None
    read = partial(_read, folder=samples.manifest.folder)
    predict, device = head_of(system), next(system.parameters()).device
    scored, priors, groups, written = [], [], [], []
    found = isolated_map(read, rows, workers=1, name=lambda row: str(row["id"]))
    for row, got in track(found, "segmenting", len(rows)):
        if isinstance(got, Rejected):
            raise InputError(f"{row['id']}: {got.reason}")
        volume, truth = got
        labels = segment_volume(volume, recipe, predict, scaled=modality == "volume", device=device)
        written.append(write_nifti(file_of(str(row["id"]), out), labels, volume.affine))
        if truth is not None:
            measure = partial(coverage, truth=truth, spacing=volume.spacing, labels=range(1, classes))
            scored.append(measure(labels))
            groups.append(str(row["group"]))
            if prior is not None:
                priors.append(measure(prior_on(volume, prior, recipe), distances=False))
    synthetic = samples.synthetic
    figures: dict[str, Any] = {"volumes": len(written), "synthetic": synthetic}
    lines = [f"{out / 'segmentation'}: {len(written)} label maps, on the grids of their volumes"]
    if scored:
        result = score_segmented(scored, priors, groups, seed=seed)
        figures["segmentation"] = result.as_dict() if hasattr(result, "as_dict") else asdict(result)
        for name, value in result.metrics.items():
            interval, floor = result.intervals[name], result.chance.get(name)
            beside = f"; shape prior {floor:.3f}" if floor is not None else ""
            lines.append(f"{name}: {value:.3f} ({interval.low:.3f} to {interval.high:.3f}{beside})")
        lines += result.notes
    else:
        note("no label map in column `labels`: nothing to compare with")
    if synthetic:
        lines.append(f"SYNTHETIC data: {synthetic}")
    report = out / "segmentation.json"
    report.write_text(json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8")
    return Outcome(figures, tuple(lines), {"maps": out / "segmentation", "figures": report})


def _read(row: dict[str, Any], folder: Any) -> tuple[Any, np.ndarray | None]:
    """In a worker: a row's volume, and its label map where it has one."""
    volume = row_volume(row, folder)
    if not isinstance(row.get("labels"), str) or not row["labels"]:
        return volume, None
    return volume, np.rint(np.asarray(row_labels(row, folder, volume).data)).astype(np.int16)


def _plain(value: Any) -> Any:
    from counterpoint.common.data.samples import plain

    return plain(value)


def _prior(data: dict[str, Any], classes: int, recipe: Any) -> np.ndarray | None:
    """The shape prior of the training split that the head was trained on; None where there is none."""
    if "train" not in data:
        return None
    train = data["train"]
    maps = [m for m in (torch.as_tensor(train[i]["labels"]) for i in range(len(train))) if (m >= 0).any()]
    return shape_prior(maps, classes).numpy() if maps else None
