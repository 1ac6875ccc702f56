"""What a biosignal team asks of an encoder: probes with few labels on held-out patients, and similar beats.

Figures come from `common.metrics`; here stand the field's own steps between windows and those figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Probe, Result, RetrievalResult, Scores, logistic_probe, rank_queries
from counterpoint.common.metrics.classification import score_classes
from counterpoint.common.metrics.labels import encode_labels
from counterpoint.timeseries.splits import check_patients, label_fraction
from counterpoint.timeseries.windows import WindowSet


@dataclass(frozen=True)
class PatientProbe(Result):
    """A linear probe on held-out patients: per window, and per patient (mean probability of his windows; None where the
    data name no patients, so that every recording is one). `series` are the figures per recording, as most papers
    give them (`score_series`); None where each is one window, or where a recording has windows of several classes.

    `labelled_windows` and `labelled_patients` say how many labels the probe has seen, those of validation included.
    """

    fraction: float
    by: str
    labelled_windows: int
    labelled_patients: int
    probe: Probe
    patients: Scores | None
    series: Scores | None = None

    @property
    def scores(self) -> Scores:
        """The figures per window, which tables show."""
        return self.probe.scores


def probe_patients(
    z: Float[Tensor, "windows dim"],
    windows: WindowSet,
    fractions: Sequence[float] = (1.0, 0.1, 0.01),
    by: str = "patient",
    seed: int = 0,
    n_boot: int = 1000,
    split: str = "test",
) -> list[PatientProbe]:
    """Fit a logistic probe on a share of the labels and score it on patients it has never seen.

    With all labels the penalty is chosen on the validation patients, whose windows then join the training ones. With
    less, the validation labels are not at hand either: it is chosen by cross-validation over patients, or is 1 where a
    class has a single patient. A share that comes to the same windows as the one before it, because every class keeps
    one patient, is not fitted again. Intervals resample patients. Raises `LeakageError` when a patient stands in two
    splits, `InputError` when the split to score has no labels.
    """
    if split == "train":
        raise InputError("probe: the training windows are what it learns from; score val or test")
    check_patients(windows)
    frame = windows.frame
    labelled = (frame["label"] != "").to_numpy()
    masks = {name: (frame["split"] == name).to_numpy() & labelled for name in ("train", "val", split)}
    for name in ("train", split):
        if not masks[name].any():
            raise InputError(f"probe: split {name} has no labelled window; set the columns label and split")
    label, group = frame["label"].to_numpy(str), frame["group"].to_numpy(str)
    train_rows = np.flatnonzero(masks["train"])
    results = []
    val = masks["val"]
    seen: set[bytes] = set()
    for fraction in fractions:
        rows = train_rows[label_fraction(windows.subset(train_rows), fraction, by, seed)]
        if rows.tobytes() in seen:
            continue
        seen.add(rows.tobytes())
        whole = fraction == 1 and val.any() and split != "val"
        fewest = min(len(set(group[rows][label[rows] == name])) for name in set(label[rows]))
        options = {"val": z[val], "val_labels": label[val].tolist()} if whole else {}
        if not whole and fewest < 2:
            options["c_grid"] = (1.0,)  # a fold would lack a class
        probe = logistic_probe(
            z[rows], label[rows].tolist(), z[masks[split]], label[masks[split]].tolist(), groups=group[masks[split]],
            train_groups=group[rows], n_boot=n_boot, seed=seed, **options,
        )  # fmt: skip
        patients = None
        if names_patients(windows):
            patients = _per_patient(probe, label[masks[split]], group[masks[split]], n_boot, seed)
        series = None
        if one_class_each(windows.subset(np.flatnonzero(masks[split]))):
            of = frame["record"].to_numpy(str)[masks[split]]
            series = score_series(
                probe.predictions, label[masks[split]], of, probe.scores.classes, group[masks[split]], n_boot, seed
            )
        used = np.union1d(rows, np.flatnonzero(val)) if whole else rows
        results.append(PatientProbe(fraction, by, len(used), len(set(group[used])), probe, patients, series))
    return results


def names_patients(windows: WindowSet) -> bool:
    """Whether the groups of the windows are more than their recordings (a manifest without groups makes each its own).
    """
    return bool((windows.frame["group"] != windows.frame["record"]).any())


def one_class_each(windows: WindowSet) -> bool:
    """Whether recordings can be scored as wholes: some have several windows, none has windows of two classes."""
    labelled = windows.frame[windows.frame["label"] != ""]
    return bool(labelled["record"].duplicated().any() and (labelled.groupby("record")["label"].nunique() == 1).all())


def score_series(
    probabilities: Float[np.ndarray, "windows classes"],
    label: Sequence[str] | np.ndarray,
    series: Sequence[str] | np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str] | np.ndarray | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Scores:
    """Figures per series (recording): its probabilities are the mean of those of its W windows, p = 1/W sum_w p_w.

    A series counts once, however many windows it has. Intervals resample `groups` (the patients), by default the series
    themselves. `classes` name the columns.

    >>> p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])  # by windows two of three are right, by series both
    >>> score_series(p, ["a", "a", "b"], ["r1", "r1", "r2"], ("a", "b"), n_boot=10).metrics["accuracy"]
    1.0

    Raises `InputError` for a series with windows of two classes, or of two groups.
    """
    names, first, code = np.unique(np.asarray(series, str), return_index=True, return_inverse=True)
    owners = np.asarray(series if groups is None else groups, str)
    for what, values in (("class", np.asarray(label, str)), ("group", owners)):
        differs = values != values[first][code]
        if differs.any():
            i = int(differs.argmax())
            one, other = str(values[first][code[i]]), str(values[i])
            raise InputError(
                f"series {names[code[i]]}: windows of {what} {one!r} and {other!r}; it cannot be scored as one"
            )
    mean = np.stack([np.bincount(code, p) for p in np.asarray(probabilities).T], 1) / np.bincount(code)[:, None]
    labels = encode_labels(list(classes), np.asarray(label, str)[first].tolist())[1]
    return score_classes(mean, labels, groups=owners[first], n_boot=n_boot, seed=seed)


def _per_patient(probe: Probe, label: np.ndarray, group: np.ndarray, n_boot: int, seed: int) -> Scores:
    """Score patients by the mean probability of their windows; a patient with several labels counts once for each."""
    units = np.array([f"{g}\t{y}" for g, y in zip(group, label)])
    names, code = np.unique(units, return_inverse=True)
    mean = np.stack([np.bincount(code, column) for column in probe.predictions.T], 1) / np.bincount(code)[:, None]
    labels = encode_labels(list(probe.scores.classes), [name.split("\t")[1] for name in names])[1]
    return score_classes(mean, labels, groups=np.array([n.split("\t")[0] for n in names]), n_boot=n_boot, seed=seed)


def similar_beats(
    z: Float[Tensor, "beats dim"],
    windows: WindowSet,
    ks: tuple[int, ...] = (1, 5, 10),
    n_boot: int = 1000,
    seed: int = 0,
    name: str = "beat -> beats of its class",
) -> RetrievalResult:
    """How often a beat's nearest neighbours, itself left out, carry its label; intervals resample patients."""
    labels = windows.frame["label"].to_numpy(str)
    if (labels == "").any():
        raise InputError("similar_beats: every beat needs a label; keep the annotated ones")
    truth = (labels.tolist(), labels.tolist())
    group = windows.frame["group"].tolist()
    return rank_queries(
        z, z, relevant=truth, exclude_self=True, ks=ks, groups=group, name=name, n_boot=n_boot, seed=seed
    )
