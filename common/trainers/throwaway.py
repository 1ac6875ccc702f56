"""What checks of claims share beside `reproduce`: trainings in folders that are thrown away, and the sample data.

    system = train_quietly(GraphCL, config, seed, manifest=molecules)
    graph = read_graph(sample_data(data, "graphs", "nodes", "planetoid") / "ind.cora")
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.config_files import override
from counterpoint.common.trainers.fitting import fit
from counterpoint.common.trainers.run_folder import create_system

DATA = "COUNTERPOINT_DATA"
QUIET = {
    "train.tensorboard": False,
    "train.monitor_every": 0,
    "train.validate_every_epochs": 10_000,  # nothing is chosen by a validation
    "train.overwrite": True,
}


def train_quietly(
    cls: Any,
    config: Any,
    seed: int,
    data: Any = None,
    *,
    manifest: Manifest | None = None,
    out: Path | None = None,
    steps: bool = True,
) -> Any:
    """Train without a word in a folder that is thrown away; returns the system with its last weights, to evaluate.

    Args:
        seed: of the initial weights, batches and views (`train.seed`).
        data: used in place of what the configuration names.
        manifest: rows to train on, saved for the time of the training; the names of files in them are absolute, or of
            a folder in `manifest.outside`.
        out: keep the run there.
        steps: False leaves the initial weights, for the untrained arm of a check.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changes = {**QUIET, "train.seed": seed, "train.out": str(out or Path(folder, "run"))}
        if manifest is not None:
            changes["data.manifest"] = str(manifest.save(Path(folder, "manifest.csv")).path)
        system = create_system(cls, override(config, changes), data)
        if steps:
            fit(system)
    return system.eval()


def sample_folder(given: str | Path | None = None) -> Path | None:
    """The folder of the sample data: the one given, else that of $COUNTERPOINT_DATA; None where neither names one.

    Raises `InputError` where what is named is no folder.
    """
    named = given or os.environ.get(DATA)
    if not named:
        return None
    if not Path(named).is_dir():
        raise InputError(f"{named}: no such folder; {'--data' if given else DATA} names the folder of the sample data")
    return Path(named)


def sample_data(data: Path | None, *below: str) -> Path:
    """A folder of the sample data, for a check that cannot do without."""
    if data is None:
        raise InputError(f"this check needs the sample data: set {DATA} or give --data")
    return Path(data, *below)
