"""The vertical's own verbs as typed functions; their signatures are the command line, so imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import ImportReport, Outcome


def import_molecules(
    source: Path,
    out: Path,
    smiles_column: str = "",
    id_column: str = "",
    tasks: tuple[str, ...] = (),
    salts: Literal["keep", "largest"] = "keep",
    standardize: bool = False,
    duplicates: Literal["first", "mean", "keep"] = "first",
    split: Literal["scaffold", "balanced-scaffold", "random", "none"] = "scaffold",
    seed: int = 0,
) -> ImportReport:
    """Turn a CSV, TSV, SMILES or SDF file into a manifest with scaffold groups and a split.

    Rows that RDKit cannot parse and duplicates (by canonical SMILES) are listed with their row and reason. Isotopes,
    salts, isolated atoms and dative bonds are kept. Empty label cells are missing labels.

    Args:
        source: the molecule file.
        out: folder that receives manifest.parquet.
        smiles_column: column of the SMILES; found by its usual names when not given.
        id_column: column of unique ids; row numbers when there is none.
        tasks: label columns; all numeric columns when not given.
        salts: keep all fragments, or the largest.
        standardize: RDKit's clean-up of groups, metals and charges; changed rows are counted.
        duplicates: keep the first row of a molecule, the mean of its labels, or all rows.
        split: scaffold is deterministic (large scaffolds train); balanced-scaffold and random depend on the seed.
        seed: seed of the split.
    """
    from counterpoint.graphs.importers import molecules_to_manifest

    return molecules_to_manifest(
        source, out, smiles_column=smiles_column, id_column=id_column, tasks=tasks, salts=salts,
        standardize=standardize, duplicates=duplicates, split=split, seed=seed,
    )  # fmt: skip


def import_circuits(
    source: Path, out: Path, train: tuple[str, ...] = (), top: str = "", allow_outside: bool = False
) -> ImportReport:
    """Turn SPICE netlists, with a SPEF or DSPF file of the same name beside them, into a manifest split by circuit.

    Args:
        source: a netlist, or a folder searched with all folders below.
        out: folder that receives manifest.parquet and copies of the files.
        train: names of the circuits to train on; without it the one with the most coupling pairs.
        top: cell to expand, where a file has several that could be the top.
        allow_outside: let netlists include files outside of their own folder.
    """
    from counterpoint.graphs.importers import circuits_to_manifest

    return circuits_to_manifest(source, out, train=train, top=top, allow_outside=allow_outside)


def import_hetero(
    source: Path, out: Path, target: str = "", metapaths: tuple[str, ...] = (), split: str = ""
) -> ImportReport:
    """Turn a folder of edge lists, or a saved PyTorch Geometric HeteroData (.pt), into one graph file and a manifest of
    the nodes of its target type.

    In a folder names say what files are: paper-author.csv or pa.txt edges, paper_feat.npz features, labels.npy labels,
    train_20.npy a split. Nodes are numbered from 0. Doubled edges count once and are told.

    Args:
        source: the folder, or the .pt file.
        out: folder that receives manifest.parquet and graph.npz.
        target: type of node that is labelled and embedded; may be left out where the labels fit one type alone.
        metapaths: paper-author-paper or PAP each; without them the target over each type that is joined to it.
        split: which of several splits of the folder (20 of train_20.npy); the smallest when not given.
    """
    from counterpoint.graphs.hetero.importing import hetero_to_manifest

    return hetero_to_manifest(source, out, target=target, metapaths=metapaths, split=split)


def simulate(
    out: Path, kind: Literal["molecules", "circuits"] = "molecules", n: int = 1000, seed: int = 0
) -> ImportReport:
    """Write synthetic molecules with computed labels, or synthetic extracted netlists, and their manifest.

    Args:
        out: folder that receives manifest.parquet and the files.
        kind: molecules or circuits.
        n: how many.
        seed: seed of the generator.
    """
    from counterpoint.graphs.importers import simulate_to_manifest

    return simulate_to_manifest(out, kind, n, seed)


def preview(manifest: Path, out: Path = Path("preview.html"), n: int = 24) -> Outcome:
    """Look at the molecules or circuits of MANIFEST: one HTML page with depictions or graph drawings.

    Args:
        manifest: made by `data import` or `data simulate`.
        out: the HTML file to write.
        n: how many rows to show.
    """
    from counterpoint.graphs.gallery import preview_page

    return preview_page(manifest, out, n)


def study(
    source: Path,
    label: str = "",
    run: Path | None = None,
    out: Path = Path("runs/graphs-study"),
    splits: tuple[Literal["random", "scaffold", "cluster"], ...] = ("random", "scaffold", "cluster"),
    seeds: int = 3,
    epochs: int = 30,
    limit: int = 5000,
    smiles_column: str = "",
) -> Outcome:
    """Which model to use for a property of your own molecules: ECFP with a forest, a network trained on the labels, and
    with --run a pretrained one, on splits whose leak is measured; ends in one sentence.

    Every seed draws a split of each kind (80, 10 and 10 %), the same for all models. Intervals allow for the overlap of
    the splits. An interrupted study goes on in the same --out.

    Args:
        source: a CSV, TSV or SDF file with labels, gzipped or not.
        label: the column to predict, of 0 and 1 or of numbers; may be left out where there is only one.
        run: folder of a run of kcl or graphcl.
        out: folder that receives study.json and the figures of every fit.
        splits: random, scaffold (no Bemis-Murcko scaffold in two parts), cluster (no Butina cluster in two parts).
        seeds: splits of each kind.
        epochs: most epochs of the networks; the validation molecules stop them earlier.
        limit: study so many molecules, drawn at random; 0 for all.
        smiles_column: column of the SMILES; found by its usual names when not given.
    """
    from counterpoint.graphs.molecules.own_table import study_table

    return study_table(
        source, label, run, out, splits=splits, seeds=seeds, epochs=epochs, limit=limit, smiles_column=smiles_column
    )


def demo(out: Path = Path("runs/graphs-demo"), seed: int = 0, epochs: int = 0) -> Outcome:
    """Learn molecules and a circuit: property probes beside their baselines, similar molecules, capacitances.

    With the sample data (COUNTERPOINT_DATA) the molecules are BBBP and the circuits SkyWater 130 nm blocks; without
    them both are synthetic and say so.

    Args:
        out: folder of the runs and report.html.
        seed: seed of weights, batches and splits.
        epochs: training epochs of KCL; 0 is the demo's.
    """
    from counterpoint.graphs.demo import run_demo

    return run_demo(out, seed=seed, epochs=epochs)
