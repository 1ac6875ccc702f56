"""The whole path in minutes on a laptop: real heartbeats first, then a synthetic cohort with held-out patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from counterpoint.common.metrics.label_free import label_free
from counterpoint.common.report import GalleryRow, Media
from counterpoint.common.runs.demonstration import Demonstration
from counterpoint.common.runs.retrieved import draw_queries, retrieved_rows
from counterpoint.common.trainers import create_system, fit, override
from counterpoint.common.trainers.throwaway import sample_data, sample_folder
from counterpoint.common.vertical import Outcome
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.comet import Comet
from counterpoint.timeseries.configs import CometConfig, SignalConfig, TS2VecConfig
from counterpoint.timeseries.gallery import draw
from counterpoint.timeseries.readers.wfdb import read_wfdb
from counterpoint.timeseries.reading import conditioned
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.tasks import probe_patients, similar_beats
from counterpoint.timeseries.ts2vec import TS2Vec
from counterpoint.timeseries.windows import BEAT_SYMBOLS, WindowSet, beat_starts, r_peaks

BEAT = SignalConfig(fs=250.0, leads=("II",), low=0.5, high=40.0, normalize="record", aliases={"II": "MLII"})
# Records with a sound ECG lead II (that of v102s has overflowed its 12 bits); only 100 has its beats annotated.
RECORDS = ("100", "a103l", "s0010_re")
NAMES = {"N": "normal", "A": "atrial premature", "V": "ventricular premature", "": "not annotated"}


def real_beats(folder: Path) -> WindowSet | None:
    """Beats of lead II of the sample records, or None when they are not there."""
    signals, rows, starts, labels = [], [], [], []
    for name in RECORDS:
        if not (folder / f"{name}.hea").is_file():
            continue
        record = read_wfdb(folder / name)
        x, fs = conditioned(record, BEAT, BEAT.leads)
        events = record.annotations
        beats = [i for i, label in enumerate(events.label) if label in BEAT_SYMBOLS]
        peaks = np.rint(events.onset[beats] * fs).astype(int) if beats else r_peaks(x[:, 0], fs)
        first, length = beat_starts(peaks, fs, BEAT.beat_before, BEAT.beat_after)
        signals.append(x)
        starts.append(first)
        labels.append([events.label[i] for i in beats] if beats else [""] * len(peaks))
        rows.append({"id": name, "group": name, "split": "train"})
    if not signals:
        return None
    return WindowSet.build(signals, length, length, rows, 250.0, ("II",), starts, labels).normalized("record")


def synthetic_beats(seed: int) -> WindowSet:
    """Beats of the generator's lead II, labelled by the patient's class."""
    cohort = ecg(patients=4, trials=2, fs=250.0, windows=20, length=256, seed=seed)
    first = cohort.frame.drop_duplicates("signal").set_index("signal")
    signals = [x[:, 1:2] for x in cohort.signals]
    found = [beat_starts(r_peaks(x[:, 0], 250.0), 250.0, BEAT.beat_before, BEAT.beat_after) for x in signals]
    rows = [{"id": first.at[i, "record"], "group": first.at[i, "group"], "split": "train"} for i in first.index]
    labels = [[first.at[i, "label"]] * len(found[i][0]) for i in first.index]
    starts = [starts for starts, _ in found]
    beats = WindowSet.build(signals, found[0][1], found[0][1], rows, 250.0, ("II",), starts, labels, synthetic=True)
    return beats.normalized("record")


def run_demo(out: Path, seed: int = 0, steps: int = 150, epochs: int = 4) -> Outcome:
    """Train both systems, evaluate, write the report."""
    demo, data = Demonstration(out), sample_folder()
    beats = None if data is None else real_beats(sample_data(data, "timeseries", "wfdb"))
    real = beats is not None
    beats = beats if beats is not None else synthetic_beats(seed)
    source = "real beats of PhysioNet sample records" if real else "SYNTHETIC beats (COUNTERPOINT_DATA is not set)"
    demo.open("Heartbeats and a cohort", f"TS2Vec on {source}; COMET on a synthetic cohort.", synthetic=not real)
    figures = _beats(demo, beats, real, seed, steps)
    demo.lap("beats")
    figures |= _cohort(demo, seed, epochs)
    demo.lap("cohort")
    lines = [f"beats: {source}"]
    for name, value in figures.items():
        lines.append(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    commands = ["counterpoint timeseries demo", "counterpoint timeseries pretrain comet --preset small"]
    return demo.finish({**figures, "beats": source}, lines, commands)


def _beats(demo: Demonstration, beats: WindowSet, real: bool, seed: int, steps: int) -> dict:
    page = demo.page
    config = override(TS2VecConfig(), {
        "encoder": {"dim": 64, "hidden": 32, "depth": 6}, "data.normalize": "record",
        **demo.training("ts2vec", seed), "train.batch_size": 32, "train.max_steps": steps,
    })  # fmt: skip
    system = create_system(TS2Vec, config, beats)
    fit(system)
    z = system.embed_windows(beats)
    labels = beats.frame["label"].to_numpy(str)
    kinds, counts = np.unique(labels, return_counts=True)
    title = "Heartbeats" if real else "Heartbeats (synthetic)"
    whose = (
        "lead II, 0.5-40 Hz. The encoder saw no label. Annotated beats come from one patient, so this shows that the "
        "parts work together; it says nothing about new patients."
        if real
        else "lead II. The encoder saw no label. Each of the four generated patients has one diagnosis, so a beat's "
        "likes are mostly beats of its own patient; this says nothing about new ones."
    )
    page.section(title, f"Every beat is a window from 0.25 s before to 0.45 s after its R peak, {whose}")
    mean = [_mean_beat(beats, labels, kind) for kind in kinds]
    page.gallery("Mean beat of each kind", mean)
    names = [NAMES.get(label, label) for label in labels]
    page.embedding_map("Beats by kind", z, names, hover=beats.frame["id"].tolist())
    page.embedding_map("Beats by patient", z, beats.frame["group"].tolist(), hover=beats.frame["id"].tolist())
    annotated = np.flatnonzero(labels != "")
    if real and len(annotated):  # one patient: kinds are compared within him
        annotated = annotated[beats.frame["group"].to_numpy()[annotated] == beats.frame["group"].iloc[annotated[0]]]
    chosen = beats.subset(annotated)
    found = similar_beats(z[annotated], chosen, n_boot=0 if real else 200, seed=seed)
    if real:
        page.text(
            "An atrial premature beat looks like a normal one within its own window: it is the pause before it that "
            "is short. Its nearest beats are therefore normal ones. The only ventricular beat has no like."
        )
    page.gallery("Similar beats", _neighbours(chosen, z[annotated], seed))
    page.text(
        f"Of {found.queries:,} beats {100 * found.metrics['R@1']:.1f} % have a nearest beat of their own kind; beats "
        f"drawn at random would have {100 * found.chance['R@1']:.1f} %{', for nearly all are normal' if real else ''}."
    )
    page.text("TS2Vec contrasts raw dot products, and the maximum over time gives all representations a common offset; "
              "the figures below are those of the centred representations.")  # fmt: skip
    page.monitors("beats, centred", label_free(z - z.mean(0)))
    return {"beats": len(beats), "kinds": {NAMES.get(k, str(k)): int(c) for k, c in zip(kinds, counts)},
            "R@1 same kind": float(found.metrics["R@1"]), "chance R@1": float(found.chance["R@1"])}  # fmt: skip


def _mean_beat(beats: WindowSet, labels: np.ndarray, kind: str) -> Media:
    rows = np.flatnonzero(labels == kind)
    caption = f"{len(rows)} beat{'s' if len(rows) != 1 else ''}"
    return Media(NAMES.get(kind, kind), image=draw(np.nanmean(beats.stack(rows), 0), width=250), caption=caption)


def _neighbours(beats: WindowSet, z: torch.Tensor, seed: int, queries: int = 2, shown: int = 4) -> list[GalleryRow]:
    """Some beats of every kind with their nearest others; right are those of the same kind."""
    labels = beats.frame["label"].to_numpy(str)
    members = (np.flatnonzero(labels == kind) for kind in np.unique(labels))
    chosen = [int(rows[i]) for rows in members for i in draw_queries(len(rows), queries, seed)]

    def beat(i: int, _: float = 0.0) -> Media:
        place = beats.place(i)
        return Media(NAMES.get(labels[i], labels[i]), draw(beats[i], place=place), caption=str(place))

    def alike(query: int) -> torch.Tensor:
        return torch.from_numpy(labels == labels[query])

    return retrieved_rows(z, None, chosen, asked=beat, answer=beat, right=alike, shown=shown)


def _cohort(demo: Demonstration, seed: int, epochs: int) -> dict:
    """COMET on the generator; probes on patients it has never seen."""
    page = demo.page
    windows = split_patients(ecg(patients=24, trials=4, windows=6, length=128, fs=64.0, seed=seed),
                             {"train": 0.5, "val": 0.25, "test": 0.25}, seed).normalized("trial")  # fmt: skip
    config = override(CometConfig(), {
        **Comet.presets["small"], "data": {"length": 128},
        **demo.training("comet", seed), "train.batch_size": 64, "train.max_epochs": epochs,
    })  # fmt: skip
    system: SignalSystem = create_system(Comet, config, windows)
    before = probe_patients(system.embed_windows(windows), windows, (1.0,), seed=seed)[0]
    fit(system)
    z = system.embed_windows(windows)
    page.section("A cohort with held-out patients (synthetic)", "Generated twelve-lead ECG: patients differ from one "
                 "another more than the sick from the healthy. The probe is scored on patients that neither the "
                 "encoder nor the probe has seen; intervals resample patients.")  # fmt: skip
    page.table("Windows, trials and patients", windows.counts())
    figures: dict = {}
    for result in probe_patients(z, windows, (1.0, 0.25), seed=seed):
        scores = result.probe.scores
        name = f"AUROC, {100 * result.fraction:g} % of labels"
        page.headline(name, scores.metrics["auroc"], interval=scores.intervals["auroc"], baseline=0.5,
                      note=f"labels of {result.labelled_patients} patients, synthetic")  # fmt: skip
        figures[f"synthetic cohort {name}"] = float(scores.metrics["auroc"])
    untrained = float(before.probe.scores.metrics["auroc"])
    page.text(f"The untrained network's features reach {untrained:.3f} with all labels.")
    figures["synthetic cohort AUROC, untrained network"] = untrained
    patients, labels = windows.frame["group"].tolist(), windows.frame["label"].tolist()
    page.embedding_map("Windows by class", z, labels, hover=patients)
    page.embedding_map("Windows by patient", z, patients, hover=labels)
    page.gallery("Windows", [Media(labels[i], image=draw(windows[i], windows.leads, 250, place=windows.place(i)),
                                   caption=str(windows.place(i))) for i in (0, 24, 48, 72)])  # fmt: skip
    return figures
