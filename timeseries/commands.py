"""The vertical's own verbs as typed functions; their signatures are the command line, so imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import ImportReport, Outcome


def import_wfdb(
    source: Path, out: Path, patient: str = "record", label: str = "", table: Path | None = None
) -> ImportReport:
    """Turn SOURCE (a WFDB header, or a folder of records) into a manifest; the recordings stay where they are.

    Args:
        source: a .hea file, or a folder that is searched with all folders below.
        out: folder that receives manifest.parquet.
        patient: who a record belongs to: `record` (each its own), `folder` (its folder's name), or a header field.
        label: header field that holds the class, e.g. "reason for admission".
        table: CSV with a row for recordings, as PhysioNet challenges have (`record,label`); its columns stand beside
            the recordings, and `patient` and `label` may name one.
    """
    from counterpoint.timeseries.importers import import_recordings

    return import_recordings(source, out, "wfdb", patient, label, table=table)


def import_edf(
    source: Path, out: Path, patient: str = "record", label: str = "", table: Path | None = None
) -> ImportReport:
    """Turn SOURCE (an EDF or EDF+ file, or a folder of them) into a manifest; the recordings stay where they are.

    A Sleep-EDF night takes the stages of the hypnogram beside it, and the nights of a subject are one patient.

    Args:
        source: an .edf file, or a folder that is searched with all folders below.
        out: folder that receives manifest.parquet.
        patient: who a recording belongs to: `record` (each its own), `folder`, or a header field (`patient`).
        label: header field that holds the class.
        table: CSV with a row for recordings, as PhysioNet challenges have (`record,label`); its columns stand beside
            the recordings, and `patient` and `label` may name one.
    """
    from counterpoint.timeseries.importers import import_recordings

    return import_recordings(source, out, "edf", patient, label, table=table)


def import_arrays(
    source: Path,
    out: Path,
    patient: str = "record",
    fs: float | None = None,
    label: str = "",
    table: Path | None = None,
) -> ImportReport:
    """Turn SOURCE (CSV, Parquet, .npy or .npz recordings) into a manifest; the recordings stay where they are.

    Args:
        source: a file, or a folder that is searched with all folders below.
        out: folder that receives manifest.parquet.
        patient: who a recording belongs to: `record` (each its own), `folder`, or a column constant in each file.
        fs: sampling rate in hertz, where the files do not state it.
        label: column that holds the class and is constant in each file.
        table: CSV with a row for recordings, as PhysioNet challenges have (`record,label`); its columns stand beside
            the recordings, and `patient` and `label` may name one.
    """
    from counterpoint.timeseries.importers import import_recordings

    return import_recordings(source, out, "arrays", patient, label, fs, table=table)


def import_ptbxl(
    source: Path, out: Path, rate: Literal["100", "500"] = "100", label: str = "superclass"
) -> ImportReport:
    """Turn PTB-XL into a manifest with its folds as splits (1-8 train, 9 val, 10 test) and its patients as groups.

    Args:
        source: the folder that holds ptbxl_database.csv, or that table.
        out: folder that receives manifest.parquet.
        rate: the recordings at 100 or at 500 Hz.
        label: `superclass` (NORM, MI, STTC, CD or HYP, where a recording has one of them alone), or the name of a class
            or SCP statement (MI, AFIB), which makes two classes: it, and not it.
    """
    from counterpoint.timeseries.ptbxl import import_database

    return import_database(source, out, int(rate), label)


def import_bids(source: Path, out: Path, label: str = "") -> ImportReport:
    """Turn a BIDS-EEG data set (EDF recordings) into a manifest with its events, bad channels and participants.

    Args:
        source: the data set's folder, or one of its subjects.
        out: folder that receives manifest.parquet.
        label: column of participants.tsv that holds the class.
    """
    from counterpoint.timeseries.bids import import_dataset

    return import_dataset(source, out, label)


def import_ucr(source: Path, out: Path, fs: float = 1.0) -> ImportReport:
    """Turn a UCR/UEA data set (NAME_TRAIN and NAME_TEST as .ts, .arff, .txt or .tsv) into a manifest with its split.

    Args:
        source: one of its files, or a folder that holds one data set.
        out: folder that receives manifest.parquet and the series.
        fs: sampling rate in hertz, which the archive does not state.
    """
    from counterpoint.timeseries.importers import import_archive

    return import_archive(source, out, fs)


def simulate(out: Path, kind: Literal["ecg", "eeg", "har"] = "ecg", patients: int = 40, seed: int = 0) -> ImportReport:
    """Write synthetic recordings with known patients and classes, split by patient: ECG, EEG or body-worn sensors.

    Args:
        out: folder that receives manifest.parquet and the recordings.
        kind: `ecg`, `eeg` or `har` (five devices on one body).
        patients: patients (subjects) to make.
        seed: the same seed gives the same data.
    """
    from counterpoint.timeseries.manifest import write_signals
    from counterpoint.timeseries.simulate import simulated
    from counterpoint.timeseries.splits import split_patients

    windows = simulated(kind, seed, **{"subjects" if kind == "har" else "patients": patients})
    windows = split_patients(windows, {"train": 0.6, "val": 0.2, "test": 0.2}, seed)
    path = write_signals(out, windows)
    rows = int(windows.frame["signal"].nunique())
    return ImportReport(path, rows, note="The recordings are synthetic; so is every score on them.")


def preview(manifest: Path, out: Path = Path("preview.html"), recordings: int = 8, seconds: float = 10.0) -> Outcome:
    """Look at the recordings of MANIFEST: the first seconds of every lead, with rates, units and events.

    Args:
        manifest: made by `data import` or `data simulate`.
        out: the HTML file to write.
        recordings: how many to show.
        seconds: how much of each.
    """
    from counterpoint.timeseries.gallery import preview_page

    return preview_page(manifest, out, recordings, seconds)


def demo(out: Path = Path("runs/timeseries-demo"), seed: int = 0, steps: int = 150, epochs: int = 4) -> Outcome:
    """Learn from heartbeats and from a synthetic cohort in minutes, and show both in one HTML report.

    Beats are those of the real records under $COUNTERPOINT_DATA; without them the generator's, and the report says so.

    Args:
        out: folder of the runs and report.html.
        seed: seed of weights, batches and the generator.
        steps: training steps on the beats (TS2Vec).
        epochs: training epochs on the cohort (COMET).
    """
    from counterpoint.timeseries.demo import run_demo

    return run_demo(out, seed=seed, steps=steps, epochs=epochs)
