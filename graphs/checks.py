"""Reduced checks of the papers' claims: both arms on the same data, splits and seeds.

`CHECKS` maps a name to its claim and to the function that runs one arm with one seed; all of them need the sample data
(`COUNTERPOINT_DATA`). What the molecule checks measure is told in `molecules/study.py`.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score

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
from counterpoint.graphs.configs import GCoolConfig, GRACEConfig, PamCConfig
from counterpoint.graphs.molecules.study import DATA, SPLITS, figure
from counterpoint.graphs.nodes.gcool import GCool
from counterpoint.graphs.nodes.grace import GRACE
from counterpoint.graphs.nodes.pamc import PamC
from counterpoint.graphs.nodes.reader import read_graph

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


def molecule_check(name: str, how: str) -> Callable[[Path | None, str, int], float]:
    """AUROC or RMSE of an arm of the property study on one set and split."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        return figure(data, name, how, arm, seed)

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


@cache
def _cluster_nmi(data: Path | None, name: str, arm: str, seed: int) -> float:
    graph = read_graph(sample_data(data) / "graphs" / "nodes" / "npz" / f"{name}.npz")
    if arm == "k-means on features":
        found = KMeans(graph.n_classes, n_init=20, random_state=seed).fit_predict(graph.x.numpy())
    else:
        found = _train(PamC, PamCConfig(), {"full": arm == "all nodes as negatives"}, seed, graph).assignment().numpy()
    return float(normalized_mutual_info_score(graph.y.numpy(), found))


def cluster_nmi(name: str) -> Callable[[Path | None, str, int], float]:
    """NMI of PamC's clusters with the classes, published sizes and epochs, last epoch; or of k-means on the features.

    Checks that share an arm share its runs.
    """
    return lambda data, arm, seed: _cluster_nmi(data, name, arm, seed)


_KCL, _CIRCUIT = "Fang et al., AAAI 2022", "Shen et al., 2025"
_PROPERTIES = (
    *((name, "AUROC", 0.03, " by 3 points") for name in ("bbbp", "bace")),
    *((name, "RMSE", 0.0, "") for name in ("esol", "freesolv", "lipo")),
)
_SKY = "sky130 SAR ADC: trained on the matrix, tested on clkgen and vcm (2 blocks of one design: very small)"
CHECKS: dict[str, tuple[Claim, Callable[[Path | None, str, int], float]]] = {
    claim.name: (claim, run)
    for claim, run in (
        *(
            (
                Claim(f"kcl-{name}-{how}", f"KCL beats the untrained encoder{by}, {name}, {how} split", "untrained",
                      "KCL", metric, metric == "AUROC", margin, source=_KCL, data=DATA),
                molecule_check(name, how),
            )
            for name, metric, margin, by in _PROPERTIES
            for how in SPLITS
        ),
        *(
            (
                Claim(f"kcl-{short}-{name}-{how}", f"KCL beats {what}, {name}, {how} split", baseline, "KCL",
                      "AUROC", source=source, data=DATA),
                molecule_check(name, how),
            )
            for short, baseline, what, source in (
                ("graphcl", "GraphCL", "GraphCL with the same encoder", _KCL),
                ("ecfp", "ECFP + forest", "ECFP with a random forest",
                 "no paper claims it: the baseline chemists ask for"),
            )
            for name in ("bbbp", "bace")
            for how in SPLITS
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
                Claim(f"pamc-{name}{suffix}", f"{statement} on {name}", baseline, "meta-nodes", "NMI", margin=margin,
                      source=source, data=f"{name} (npz), published CiteSeer settings, 200 epochs"),
                cluster_nmi(name),
            )
            for name in ("cora", "citeseer")
            for suffix, statement, baseline, margin, source in (
                ("", "meta-nodes stay within 2 points of NMI of all nodes as negatives", "all nodes as negatives",
                 -0.02, "Kulatilleke et al., 2022"),
                ("-kmeans", "meta-nodes beat k-means on the features", "k-means on features", 0.0,
                 "no paper claims it: the baseline without a graph"),
            )
        ),
    )
}  # fmt: skip
