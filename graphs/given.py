"""Molecules handed over in Python: a list, a Series or a column of SMILES, or of RDKit's molecules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samples import BadSample, plain, refuse_bad
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.vertical import Given
from counterpoint.graphs.configs import MoleculeDataConfig


def samples_from(x: Any, config: Any, groups: Sequence[str], split: Sequence[str], assets: Assets | None) -> Given:
    """One sample a molecule, in RDKit's canonical SMILES, as `data import molecules` takes it.

    A row that is no molecule raises `InputError`, or makes no sample with `train.on_error=skip`, up to a share of
    `train.max_bad`. Systems that learn from circuits or from one graph take no X.
    """
    if not isinstance(config.data, MoleculeDataConfig):
        raise InputError(
            f"{type(config).__name__.removesuffix('Config')} learns from files of graphs, not from rows of X; train it "
            "with counterpoint graphs pretrain"
        )
    if not isinstance(x, list):
        what = "X holds numbers or several columns"
        raise InputError(f"{what}; give molecules as SMILES: a list, a Series or one column of them")
    if config.data.manifest:
        raise InputError("data.manifest names molecules and X holds some; leave it out")
    from counterpoint.graphs.molecules.data import MoleculeDataset, datasets_of

    smiles, bad = _canonical(x)
    if bad and config.train.on_error == "raise":
        row, reason = next(iter(bad.items()))
        raise InputError(f"X[{row}] {reason}; mend or remove the row, or give train.on_error=skip")
    for row, reason in list(bad.items())[:1]:
        refuse_bad(len(bad), len(x), config.train.max_bad, BadSample(row, f"X[{row}]", reason))
    frame = pd.DataFrame({"id": [str(row) for row in range(len(x))], "group": groups, "split": split, "smiles": smiles})
    kept = frame.drop(index=list(bad))
    dataset = partial(MoleculeDataset, workers=config.data.workers)
    return Given(datasets_of(Manifest(kept), dataset) if len(kept) else None, config, bad)


def _canonical(molecules: list) -> tuple[list[str], dict[int, str]]:
    """The SMILES of every molecule, and what is wrong with those that are none."""
    from rdkit import Chem

    from counterpoint.graphs.molecules.rdkit_log import quiet_rdkit
    from counterpoint.graphs.molecules.reader import parsed, short_smiles

    smiles, bad = [], {}
    with quiet_rdkit() as log:
        for row, molecule in enumerate(molecules):
            problem = ""
            if isinstance(molecule, str):
                molecule, problem = parsed(molecule, log)
                problem = problem and f"({short_smiles(molecules[row])!r}) {problem}"
            elif not isinstance(molecule, Chem.Mol):
                kind = type(molecule).__name__
                problem = "has no SMILES" if plain(molecule) is None else f"is a {kind}, neither SMILES nor molecule"
            if problem:
                bad[row] = problem
            smiles.append("" if problem else Chem.MolToSmiles(molecule))
    return smiles, bad
