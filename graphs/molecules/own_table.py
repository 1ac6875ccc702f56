"""The study of one's own table: which model to use for a property, on splits whose leak is measured.

Arms, all on the same splits: the mean of the training labels (chance), ECFP with a forest, a graph network trained on
the labels alone; with a pretrained run also ECFP beside the run's vectors in one forest, and the run's network
fine-tuned. Figures are written as they come, and a study that was interrupted goes on with what is missing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.importing import plain_reason
from counterpoint.common.data.samples import values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.output import table, write_json
from counterpoint.common.progress import note, track
from counterpoint.common.trainers import load_run
from counterpoint.common.vertical import Outcome
from counterpoint.graphs.configs import KCLConfig
from counterpoint.graphs.importers import READING_SECONDS, read_with_scaffolds
from counterpoint.graphs.molecules.advice import advise, resampled_interval
from counterpoint.graphs.molecules.encoders import MoleculeGCN
from counterpoint.graphs.molecules.properties import (
    Arm,
    PropertyTask,
    ecfp_forest,
    fingerprints_of,
    forest_on,
    from_scratch,
    score,
    split_task,
)
from counterpoint.graphs.molecules.tanimoto import TWIN, nearest_similarity
from counterpoint.graphs.molecules.vectors import features_of
from counterpoint.graphs.molecules.watch import read_watched

CHANCE, FOREST = "mean of the training labels", "ECFP + forest"
FEWEST = 50
"""Labelled molecules below which a test split holds a handful."""


def study_table(
    source: Path, label: str, run: Path | None, out: Path, *, splits: Sequence[str], seeds: int, epochs: int,
    limit: int, smiles_column: str = "",
) -> Outcome:  # fmt: skip
    """Every arm on every split; tables, `out/study.json`, and a closing sentence that says which arm to use."""
    task, notes = read_task(Path(source), label, limit, smiles_column)
    system = load_run(run) if run else None
    arms = arms_of(system, epochs)
    cut = _different(task, splits, seeds, notes)
    done = _Figures(out, _identity(task, system, epochs))
    left = [(how, seed, arm) for how, seed in cut for arm in arms if (how, seed, arm) not in done.known]
    if left and len(left) < len(cut) * len(arms):
        note(f"{out}: goes on after {len(cut) * len(arms) - len(left)} of {len(cut) * len(arms)} fits")
    metrics = ("AUROC", "AUPRC") if task.kind == "classification" else ("RMSE",)
    for i, (how, seed, arm) in enumerate(track(left, "fitting"), 1):
        split = cut[how, seed]
        predicted = arms[arm](task, split, seed)
        found = {metric: score(task, predicted, split["test"], metric) for metric in metrics}
        done.add(how, seed, arm, found)
        told = ", ".join(f"{metric} {value:.3f}" for metric, value in found.items())
        note(f"{i}/{len(left)}: {arm}, {how} split {seed}: {told}")
    share = float(np.mean([len(s["test"]) / (len(s["train"]) + len(s["val"])) for s in cut.values()]))
    figures = {m: {a: {h: [done.figure(h, s, a, m) for s in range(seeds)] for h in splits} for a in arms}
               for m in metrics}  # fmt: skip
    leaks = {how: _leak(task, [split for (kind, _), split in cut.items() if kind == how]) for how in splits}
    sentence = advise(
        figures[metrics[0]], baseline=FOREST, chance=CHANCE, higher=metrics[0] != "RMSE", metric=metrics[0],
        test_share=share,
    )  # fmt: skip
    lines = [*notes, "", *_figure_lines(figures, arms, splits, share), "", *_leak_lines(leaks), "", sentence]
    result = {"label": task.name, "kind": task.kind, "molecules": len(task.labels), "seeds": seeds, "notes": notes,
              "figures": figures, "leak": leaks, "advice": sentence}  # fmt: skip
    write_json(result, out / "study.json")
    return Outcome(result, tuple(lines), {"study": out / "study.json"})


def read_task(source: Path, label: str, limit: int, smiles_column: str = "") -> tuple[PropertyTask, list[str]]:
    """The labelled molecules of a file, at most `limit` of them drawn at random, and what became of its rows.

    Raises `InputError` for a column that is no label, one value alone, two values other than 0 and 1, or too few.
    """
    read = partial(
        read_with_scaffolds, source=source, smiles_column=smiles_column or None, tasks=[label] if label else None
    )
    try:
        molecules, _, _ = read_watched(read, READING_SECONDS)
    except InputError as error:
        reason = plain_reason(str(error), source).replace("--tasks", "--label")
        raise InputError(f"{source}: {reason}") from None
    if not label and len(molecules.tasks) != 1:
        columns = ", ".join(molecules.tasks) or "none"
        raise InputError(f"{source}: --label is not set; columns that can be predicted: {columns}")
    label = label or molecules.tasks[0]
    values = molecules.frame[label].to_numpy(float)
    task = PropertyTask.of(label, molecules.frame["smiles"].tolist(), values)
    classes = np.unique(task.labels)
    notes = [molecules.summary()]
    if conflicts := sum("with other labels" in issue.reason for issue in molecules.issues):
        notes.append(f"{conflicts} duplicate(s) have other labels than the first row of their molecule, which counts")
    if len(task.labels) < len(values):
        notes.append(f"{len(values) - len(task.labels)} molecule(s) have no {label}")
    if len(classes) == 1:
        raise InputError(f"{source}: all {len(task.labels)} values of {label} are {classes[0]:g}; there is nothing to "
                         "predict")  # fmt: skip
    if len(classes) == 2 and task.kind != "classification":
        raise InputError(f"{source}: {label} has two values, {classes[0]:g} and {classes[1]:g}; write classes as 0 and "
                         "1")  # fmt: skip
    if len(task.labels) < FEWEST:
        raise InputError(f"{source}: {len(task.labels)} molecules have a value of {label}; a study needs {FEWEST}")
    if limit and len(task.labels) > limit:
        notes.append(f"{limit} of {len(task.labels)} molecules, drawn at random; --limit 0 takes all")
        rows = np.sort(np.random.default_rng(0).permutation(len(task.labels))[:limit])
        task = replace(task, smiles=tuple(task.smiles[i] for i in rows), labels=task.labels[rows])
    if task.kind == "classification":
        notes.append(f"{label}: {int(task.labels.sum())} of {len(task.labels)} are 1 ({task.labels.mean():.1%}), the "
                     "chance level of AUPRC")  # fmt: skip
    return task, notes


def arms_of(system: Any, epochs: int) -> dict[str, Arm]:
    """The arms by name, those of a pretrained run where there is one. Raises `InputError` for a run of no molecules."""
    if system is not None and not isinstance(getattr(system, "gcn", None), MoleculeGCN):
        raise InputError(
            f"--run holds {type(system).__name__}, which encodes no molecules; give a run of kcl or graphcl"
        )
    config = KCLConfig() if system is None else system.config
    layers = getattr(config, "gcn_layers", None) or config.layers
    fresh = partial(MoleculeGCN, config.node_dim, config.hidden, layers, config.atom_features if system else "full")
    options = {"epochs": epochs, "patience": max(epochs // 4, 5)}
    arms: dict[str, Arm] = {CHANCE: _mean_label, FOREST: ecfp_forest}
    if system is not None:
        encode = features_of(system)

        def beside(task: PropertyTask, split: dict[str, np.ndarray], seed: int) -> np.ndarray:
            columns = np.concatenate([fingerprints_of(task.smiles), encode(task.smiles).numpy()], 1, dtype=np.float32)
            return forest_on(columns, task, split, seed)

        arms["ECFP and vectors + forest"] = beside
    arms["from scratch"] = from_scratch(fresh, **options)
    if system is not None:
        arms["fine-tuned"] = from_scratch(lambda: copy.deepcopy(system.gcn).requires_grad_(True), **options)
    return arms


def _different(
    task: PropertyTask, splits: Sequence[str], seeds: int, notes: list[str]
) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """The splits by kind and seed. Where few groups leave little choice, seeds draw the same split again: it is left
    out, and said, for a figure repeated is no second measurement."""
    cut: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for how in splits:
        seen: set[bytes] = set()
        for seed in range(seeds):
            split = split_task(task, how, seed)
            test = np.sort(split["test"]).tobytes()
            if test not in seen:
                cut[how, seed] = split
            seen.add(test)
        if len(seen) < seeds:
            notes.append(f"{how} split: {seeds} seeds drew {len(seen)} different one(s); the others are left out")
    return cut


def _mean_label(task: PropertyTask, split: dict[str, np.ndarray], seed: int) -> np.ndarray:
    fitted = np.concatenate([split["train"], split["val"]])
    return np.full(len(split["test"]), task.labels[fitted].mean())


def _identity(task: PropertyTask, system: Any, epochs: int) -> str:
    weights = {} if system is None else dict(system.gcn.state_dict())
    known = {"smiles": "\n".join(task.smiles), "labels": task.labels, "epochs": epochs, **weights}
    return values_hash(known)


class _Figures:
    """Figures of fits in `folder/fits.jsonl`, whose first line names the study they belong to."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.file = folder / "fits.jsonl"
        self.known: dict[tuple[str, int, str], dict[str, float]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if not self.file.is_file():
            self.file.write_text(json.dumps({"study": identity}) + "\n", encoding="utf-8")
            return
        for i, line in enumerate(self.file.read_text(encoding="utf-8").splitlines()):
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the line at which the last study was interrupted: its fit is made again
            if i == 0 and row.get("study") != identity:
                raise InputError(f"{folder}: holds a study of other molecules, labels or settings; give another --out")
            if i:
                self.known[row["split"], row["seed"], row["arm"]] = row["figures"]
        whole = [{"study": identity}, *(self._row(*key, figures) for key, figures in self.known.items())]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in whole), encoding="utf-8")

    @staticmethod
    def _row(how: str, seed: int, arm: str, figures: dict[str, float]) -> dict[str, Any]:
        return {"split": how, "seed": seed, "arm": arm, "figures": figures}

    def figure(self, how: str, seed: int, arm: str, metric: str) -> float:
        """NaN for a split that was left out."""
        return self.known.get((how, seed, arm), {}).get(metric, float("nan"))

    def add(self, how: str, seed: int, arm: str, figures: dict[str, float]) -> None:
        self.known[how, seed, arm] = figures
        row = self._row(how, seed, arm, figures)
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(row) + "\n")


def _leak(task: PropertyTask, splits: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """Over all test molecules of all seeds: the median similarity to the nearest training molecule, and the share of
    near twins."""
    bits = fingerprints_of(task.smiles)
    near = np.concatenate([nearest_similarity(bits[s["test"]], bits[s["train"]]) for s in splits])
    return {"median_nearest": float(np.median(near)), "near_twins": float((near >= TWIN).mean())}


def _figure_lines(figures: Any, arms: Iterable[str], splits: Sequence[str], share: float) -> list[str]:
    bounds = {metric: (0.0, np.inf if metric == "RMSE" else 1.0) for metric in figures}
    rows = [
        [how, arm, *(str(resampled_interval(figures[m][arm][how], share, bounds=bounds[m])) for m in figures)]
        for how in splits
        for arm in arms
    ]
    return table(["split", "model", *(f"{metric} [95 %]" for metric in figures)], rows)


def _leak_lines(leaks: dict[str, dict[str, float]]) -> list[str]:
    rows = [[how, f"{leak['median_nearest']:.2f}", f"{leak['near_twins']:.1%}"] for how, leak in leaks.items()]
    columns = ["split", "nearest training molecule (median Tanimoto)", f"test molecules with one at {TWIN} or more"]
    return table(columns, rows)
