"""Reduced checks of the papers' claims: both arms on the same data, splits and seeds.

`CHECKS` maps a name to its claim and to the function that runs one arm with one seed; all of them need the sample data
(`COUNTERPOINT_DATA`). Molecules are pretrained without labels on the union of five MoleculeNet sets, test molecules
included, as is usual for transductive pretraining and said in the claim.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.trainers import create_system, fit, override
from counterpoint.common.trainers.reproduce import Claim, sample_data
from counterpoint.graphs.circuits.data import load_circuit
from counterpoint.graphs.circuits.downstream import (
    DownstreamConfig,
    Statistics,
    ground_figures,
    predict_coupling,
    prepare,
    regression_figures,
    train_coupling,
    train_ground,
)
from counterpoint.graphs.circuits.graph import CapacitanceScale
from counterpoint.graphs.configs import GCoolConfig, GRACEConfig, GraphCLConfig, KCLConfig, PamCConfig
from counterpoint.graphs.molecules.graphcl import GraphCL
from counterpoint.graphs.molecules.kcl import KCL
from counterpoint.graphs.molecules.properties import Task, ecfp_forest, probe_arm, score, split_task
from counterpoint.graphs.molecules.reader import read_molecules
from counterpoint.graphs.molecules.vectors import encoder_of
from counterpoint.graphs.nodes.gcool import GCool
from counterpoint.graphs.nodes.grace import GRACE
from counterpoint.graphs.nodes.pamc import PamC
from counterpoint.graphs.nodes.reader import read_graph

SETS = ("bbbp", "bace", "esol", "freesolv", "lipo")
EPOCHS = 2
_QUIET = {"train.tensorboard": False, "train.monitor_every": 0, "train.overwrite": True}


def _train(cls: Any, config: Any, changes: dict[str, Any], seed: int, graph: Any = None) -> Any:
    """A system trained in a folder that is thrown away, with its last weights (never chosen by labels)."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = override(config, {**changes, **_QUIET, "train.seed": seed, "train.out": f"{folder}/run"})
        torch.manual_seed(seed)
        system = create_system(cls, config) if graph is None else cls(config, graph)
        fit(system)
    return system.eval()


# Molecules ---------------------------------------------------------------------------------------------------------


@cache
def _task(data: Path | None, name: str) -> Task:
    table = read_molecules(sample_data(data) / "graphs" / "molecules" / f"{name}.csv")
    return Task.of(name, table.frame["smiles"].tolist(), table.frame[table.tasks[0]].to_numpy(float))


@cache
def _pretrained(data: Path | None, method: str, seed: int) -> Callable:
    """SMILES -> vectors of an encoder pretrained on the union of the sets."""
    smiles = sorted({s for name in SETS for s in _task(data, name).smiles})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "union.csv"
        frame = pd.DataFrame({"id": [str(i) for i in range(len(smiles))], "smiles": smiles})
        Manifest(frame).save(path)
        cls, config = (GraphCL, GraphCLConfig()) if method == "GraphCL" else (KCL, KCLConfig())
        changes: dict[str, Any] = {
            "data.manifest": str(path),
            **cls.presets["small"],
            "train.max_epochs": EPOCHS,
        }
        if method == "untrained":
            return encoder_of(create_system(cls, override(config, {**changes, "train.seed": seed})))
        return encoder_of(_train(cls, config, changes, seed))


def molecule_check(name: str, how: str) -> Callable[[Path | None, str, int], float]:
    """AUROC or RMSE on one set and split of a linear probe on an arm's vectors (or of the forest)."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        task = _task(data, name)
        split = split_task(task, how, seed)
        predict = ecfp_forest if arm == "ECFP + forest" else probe_arm(_pretrained(data, arm, seed))
        return score(task, predict(task, split, seed), split["test"])

    return run


# Circuits ----------------------------------------------------------------------------------------------------------

BLOCKS = {
    "matrix": "sky130_saradc/adc_array_matrix_12bit.mag.C.postlayout.spice",
    "clkgen": "sky130_saradc/adc_clkgen_with_edgedetect.gds.lvs.with_c.spice",
    "vcm": "sky130_saradc/adc_vcm_generator.mag.lvs.with_c.spice",
}


@cache
def _blocks(data: Path | None) -> dict[str, Any]:
    folder = sample_data(data) / "graphs" / "circuits"
    graphs = {name: load_circuit({"netlist": path, "id": name}, folder) for name, path in BLOCKS.items()}
    train = graphs["matrix"]
    statistics = Statistics.fit([train])
    coupling = CapacitanceScale.fit(train.coupling_farad)
    ground = CapacitanceScale.fit(train.ground_farad)
    config = DownstreamConfig.small()
    return {n: prepare(g, statistics, coupling, ground, None, config.fanout) for n, g in graphs.items()}


def coupling_check(figure: str) -> Callable[[Path | None, str, int], float]:
    """A figure of the coupling labels, mean over the blocks that training never saw."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        blocks = _blocks(data)
        config = DownstreamConfig.small()
        model = train_coupling([blocks["matrix"]], config, loss=arm.lower(), seed=seed)
        found = [
            regression_figures(predict_coupling(model, blocks[n], config), blocks[n].link_label)[figure]
            for n in ("clkgen", "vcm")
        ]
        return float(np.mean(found))

    return run


def ground_check(data: Path | None, arm: str, seed: int) -> float:
    """Macro F1 of ground-capacitance classes, mean over the unseen blocks."""
    blocks = _blocks(data)
    model = train_ground([blocks["matrix"]], DownstreamConfig.small(), balanced=arm == "balanced softmax", seed=seed)
    return float(np.mean([ground_figures(model, blocks[n])["macro F1"] for n in ("clkgen", "vcm")]))


# Nodes -------------------------------------------------------------------------------------------------------------


def node_accuracy(name: str) -> Callable[[Path | None, str, int], float]:
    """Accuracy of a logistic probe on the public split, last epoch; C chosen on the public validation nodes."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        graph = read_graph(sample_data(data) / "graphs" / "nodes" / "planetoid" / f"ind.{name}")
        cls, config = (GCool, GCoolConfig()) if arm == "gCooL" else (GRACE, GRACEConfig())
        changes = {**cls.presets["small"], "train.max_epochs": 100}
        if cls is GCool:
            changes["communities"] = graph.n_classes
        z = _train(cls, config, changes, seed, graph).node_vectors().numpy()
        rows = {part: graph.split == part for part in ("train", "val", "test")}
        y = graph.y.numpy()
        best = (-1.0, 0.0)
        for c in np.logspace(-3, 3, 7):
            model = LogisticRegression(C=c, max_iter=1000).fit(z[rows["train"]], y[rows["train"]])
            best = max(
                best, (model.score(z[rows["val"]], y[rows["val"]]), model.score(z[rows["test"]], y[rows["test"]]))
            )
        return best[1]

    return run


def cluster_nmi(name: str) -> Callable[[Path | None, str, int], float]:
    """NMI of PamC's clusters with the classes, last epoch; or of k-means on the features."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        graph = read_graph(sample_data(data) / "graphs" / "nodes" / "npz" / f"{name}.npz")
        if arm == "k-means":
            found = KMeans(graph.n_classes, n_init=20, random_state=seed).fit_predict(graph.x.numpy())
        else:
            changes = {**PamC.presets["small"], "full": arm == "all nodes as negatives"}
            found = _train(PamC, PamCConfig(), changes, seed, graph).assignment().numpy()
        return float(normalized_mutual_info_score(graph.y.numpy(), found))

    return run


_KCL, _CIRCUIT = "Fang et al., AAAI 2022", "Shen et al., 2025"
_UNION = "MoleculeNet; pretrained 2 epochs on the union of 5 sets, test molecules included without labels"
_SKY = "sky130 SAR ADC: trained on the matrix, tested on clkgen and vcm (2 blocks of one design: very small)"
CHECKS: dict[str, tuple[Claim, Callable[[Path | None, str, int], float]]] = {
    claim.name: (claim, run)
    for claim, run in (
        *(
            (
                Claim(f"kcl-{name}-{how}", f"KCL beats the untrained encoder, {name}, {how} split", "untrained", "KCL",
                      "AUROC" if name in ("bbbp", "bace") else "RMSE", name in ("bbbp", "bace"), source=_KCL,
                      data=_UNION),
                molecule_check(name, how),
            )
            for name in SETS
            for how in ("random", "scaffold")
        ),
        (
            Claim("kcl-graphcl", "KCL beats GraphCL with the same encoder on bbbp, scaffold split", "GraphCL", "KCL",
                  "AUROC", source=_KCL, data=_UNION),
            molecule_check("bbbp", "scaffold"),
        ),
        (
            Claim("kcl-ecfp", "KCL beats ECFP with a random forest on bbbp, scaffold split", "ECFP + forest", "KCL",
                  "AUROC", source="no paper claims it: the baseline chemists ask for", data=_UNION),
            molecule_check("bbbp", "scaffold"),
        ),
        (
            Claim("circuitgcl-gai", "GAI lowers the error on the rarest fifth of labels", "MSE", "GAI",
                  "MAE of the rarest fifth", False, source=_CIRCUIT, data=_SKY),
            coupling_check("MAE of the rarest fifth"),
        ),
        (
            Claim("circuitgcl-bsce", "balanced softmax raises macro F1 of ground-capacitance classes by 3 points",
                  "cross-entropy", "balanced softmax", "macro F1", margin=0.03, source=_CIRCUIT, data=_SKY),
            ground_check,
        ),
        *(
            (
                Claim(f"gcool-{name}", f"gCooL is at most half a point below GRACE on {name}", "GRACE", "gCooL",
                      "accuracy", margin=-0.005, source="Li et al., WWW 2022",
                      data=f"{name} (Planetoid, public split), 100 epochs, small encoders"),
                node_accuracy(name),
            )
            for name in ("cora", "citeseer")
        ),
        *(
            (
                Claim(f"pamc-{name}", f"meta-nodes stay within 2 points of NMI of all nodes as negatives on {name}",
                      "all nodes as negatives", "meta-nodes", "NMI", margin=-0.02,
                      source="Kulatilleke et al., 2022", data=f"{name} (npz), 60 epochs, small encoder"),
                cluster_nmi(name),
            )
            for name in ("cora", "citeseer")
        ),
    )
}  # fmt: skip
