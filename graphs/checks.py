"""Reduced checks of the papers' claims: both arms on the same data, splits and seeds.

`CHECKS` maps a name to its claim and to the function that runs one arm with one seed; all of them need the sample data
(`COUNTERPOINT_DATA`). What the molecule checks measure is told in `molecules/study.py`. Where neither a statement nor a
paper gives the size of an effect, a tenth of the baseline's error is asked for (of molecules a twentieth), three points
of AUROC, five of NMI, and of the scattering that it takes away a third of the length at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from torch.nn.functional import normalize

from counterpoint.common.data.manifest import SPLITS, Manifest
from counterpoint.common.trainers import override
from counterpoint.common.trainers.reproduce import Claim, Measured
from counterpoint.common.trainers.run_folder import build_system
from counterpoint.common.trainers.throwaway import sample_data, train_quietly
from counterpoint.graphs.circuits.circuitgcl import CircuitGCL
from counterpoint.graphs.circuits.data import load_circuit
from counterpoint.graphs.circuits.downstream import DownstreamConfig
from counterpoint.graphs.circuits.graph import CircuitGraph
from counterpoint.graphs.circuits.transfer import Transfer
from counterpoint.graphs.configs import CircuitGCLConfig, GCoolConfig, GRACEConfig, PamCConfig
from counterpoint.graphs.molecules.study import DATA, SPLIT_KINDS, figure
from counterpoint.graphs.nodes.gcool import GCool
from counterpoint.graphs.nodes.grace import GRACE
from counterpoint.graphs.nodes.pamc import PamC
from counterpoint.graphs.nodes.reader import read_graph

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
    "wowa": "sky130_tt06-analog-wowa/xschem_extracted_wowa_analog.sim.spice",
}


def _block(data: Path | None, name: str) -> CircuitGraph:
    return load_circuit({"netlist": BLOCKS[name], "id": name}, sample_data(data, "graphs", "circuits"))


@cache
def _from_matrix(data: Path | None) -> Transfer:
    test = [_block(data, name) for name in ("clkgen", "vcm")]
    return Transfer.of([_block(data, "matrix")], test, DownstreamConfig.small())


def _mean(figures: dict[str, dict[str, float]], name: str) -> float:
    return float(np.mean([f[name] for f in figures.values()]))


def coupling_check(figure: str) -> Callable[[Path | None, str, int], float]:
    """A figure of the coupling labels, mean over the blocks that training never saw."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        transfer = _from_matrix(data)
        return _mean(transfer.coupling_figures(transfer.coupling_model(arm.lower(), seed)), figure)

    return run


def ground_check(data: Path | None, arm: str, seed: int) -> float:
    """Macro F1 of ground-capacitance classes, mean over the unseen blocks."""
    return _mean(_from_matrix(data).ground_figures(balanced=arm == "balanced softmax", seed=seed), "macro F1")


@cache
def _pretrained_on_clkgen(data: Path | None, seed: int) -> CircuitGCL:
    blocks = sample_data(data, "graphs", "circuits").resolve()
    row = {"id": "clkgen", "netlist": str(blocks / BLOCKS["clkgen"]), "split": "train"}
    manifest = Manifest.from_rows([row], outside=[blocks])
    config = override(CircuitGCLConfig(), CircuitGCL.presets["small"])
    return train_quietly(CircuitGCL, config, seed, manifest=manifest)


def pretraining_check(data: Path | None, arm: str, seed: int) -> float:
    """Mean absolute error of coupling labels, mean over unseen blocks, with pretrained vectors or without."""
    train, test = [_block(data, "clkgen")], [_block(data, name) for name in ("vcm", "wowa")]
    vectors = _pretrained_on_clkgen(data, seed).vectors if arm == "pretrained vectors too" else None
    transfer = Transfer.of(train, test, DownstreamConfig.small(), vectors)
    return _mean(transfer.coupling_figures(transfer.coupling_model(seed=seed)), "MAE")


def scattering_check(data: Path | None, arm: str, seed: int) -> float:
    """Length of the mean unit vector of an unseen block's nodes (1: all alike, 0: evenly spread)."""
    system = _pretrained_on_clkgen(data, seed)
    if arm == "untrained":
        system = build_system(CircuitGCL, system.config, system.assets).eval()
    return float(normalize(system.vectors(_block(data, "vcm")), dim=1).mean(0).norm())


# Nodes -------------------------------------------------------------------------------------------------------------


_STRENGTHS = np.logspace(-3, 3, 7)


def node_accuracy(name: str) -> Callable[[Path | None, str, int], Measured]:
    """Accuracy of a logistic probe on the public split, last epoch; C chosen on the public validation nodes. Every test
    node is a group."""

    def run(data: Path | None, arm: str, seed: int) -> Measured:
        graph = read_graph(sample_data(data, "graphs", "nodes", "planetoid") / f"ind.{name}")
        cls, config = (GCool, GCoolConfig()) if arm == "gCooL" else (GRACE, GRACEConfig())
        changes = {**cls.presets["small"], "train.max_epochs": 100}
        if cls is GCool:
            changes["communities"] = graph.n_classes
        z = train_quietly(cls, override(config, changes), seed, graph).node_vectors().numpy()
        rows = {part: graph.split == part for part in SPLITS}
        y = graph.y.numpy()
        models = [LogisticRegression(C=c, max_iter=1000).fit(z[rows["train"]], y[rows["train"]]) for c in _STRENGTHS]
        # Of equal validation scores the first, whatever its test score: the choice never sees a test label.
        chosen = max(models, key=lambda model: model.score(z[rows["val"]], y[rows["val"]]))
        right = chosen.predict(z[rows["test"]]) == y[rows["test"]]
        return Measured.of(dict(zip(map(str, np.flatnonzero(rows["test"])), right.astype(float).tolist())))

    return run


@cache
def _cluster_nmi(data: Path | None, name: str, arm: str, seed: int) -> float:
    graph = read_graph(sample_data(data, "graphs", "nodes", "npz") / f"{name}.npz")
    if arm == "k-means on features":
        found = KMeans(graph.n_classes, n_init=20, random_state=seed).fit_predict(graph.x.numpy())
    else:
        config = PamCConfig(full=arm == "all nodes as negatives")
        found = train_quietly(PamC, config, seed, graph).assignment().numpy()
    return float(normalized_mutual_info_score(graph.y.numpy(), found))


def cluster_nmi(name: str) -> Callable[[Path | None, str, int], float]:
    """NMI of PamC's clusters with the classes, published sizes and epochs, last epoch; or of k-means on the features.

    Checks that share an arm share its runs.
    """
    return lambda data, arm, seed: _cluster_nmi(data, name, arm, seed)


_KCL, _CIRCUIT = "Fang et al., AAAI 2022", "Shen et al., 2025"
# Of errors 5 % of the untrained encoder's count as an effect.
_PROPERTIES = (
    *((name, "AUROC", 0.03, 0.03, " by 3 points") for name in ("bbbp", "bace")),
    *((name, "RMSE", 0.0, effect, "") for name, effect in (("esol", 0.05), ("freesolv", 0.1), ("lipo", 0.05))),
)
_SKY = "sky130 SAR ADC: trained on the matrix, tested on clkgen and vcm (2 blocks of one design: very small)"
_CLKGEN = "sky130: trained (and pretrained, small preset) on the clock generator, tested on {} (very small)"
CHECKS: dict[str, tuple[Claim, Callable[[Path | None, str, int], float | Measured]]] = {
    claim.name: (claim, run)
    for claim, run in (
        *(
            (
                Claim(f"kcl-{name}-{how}", f"KCL beats the untrained encoder{by}, {name}, {how} split", "untrained",
                      "KCL", metric, metric == "AUROC", margin, source=_KCL, data=DATA, effect=effect),
                molecule_check(name, how),
            )
            for name, metric, margin, effect, by in _PROPERTIES
            for how in SPLIT_KINDS
        ),
        *(
            (
                Claim(f"kcl-{short}-{name}-{how}", f"KCL beats {what}, {name}, {how} split", baseline, "KCL",
                      "AUROC", source=source, data=DATA, effect=0.03),
                molecule_check(name, how),
            )
            for short, baseline, what, source in (
                ("graphcl", "GraphCL", "GraphCL with the same encoder", _KCL),
                ("ecfp", "ECFP + forest", "ECFP with a random forest", ""),  # no claim: what chemists ask for
            )
            for name in ("bbbp", "bace")
            for how in SPLIT_KINDS
        ),
        (
            Claim("circuitgcl-gai", "GAI lowers the error on the rarest fifth of labels", "MSE", "GAI",
                  "MAE of the rarest fifth", False, source=_CIRCUIT, data=_SKY, effect=0.07),
            coupling_check("MAE of the rarest fifth"),
        ),
        (
            Claim("circuitgcl-bsce", "balanced softmax raises macro F1 of ground-capacitance classes by 3 points",
                  "cross-entropy", "balanced softmax", "macro F1", margin=0.03, source=_CIRCUIT, data=_SKY),
            ground_check,
        ),
        (
            Claim("circuitgcl-pretraining", "pretrained vectors beside statistics lower the error on unseen blocks",
                  "statistics alone", "pretrained vectors too", "MAE of the label", False, source=_CIRCUIT,
                  data=_CLKGEN.format("vcm and wowa"), effect=0.02),
            pretraining_check,
        ),
        (
            Claim("circuitgcl-scattering", "scattering spreads the nodes of an unseen block over the sphere",
                  "untrained", "pretrained", "length of the mean unit vector", False, source=_CIRCUIT,
                  data=_CLKGEN.format("vcm"), effect=0.3),
            scattering_check,
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
                      source=source, effect=effect, data=f"{name} (npz), published CiteSeer settings, 200 epochs"),
                cluster_nmi(name),
            )
            for name in ("cora", "citeseer")
            for suffix, statement, baseline, margin, effect, source in (
                ("", "meta-nodes stay within 2 points of NMI of all nodes as negatives", "all nodes as negatives",
                 -0.02, 0.02, "Kulatilleke et al., 2022"),
                ("-kmeans", "meta-nodes beat k-means on the features", "k-means on features", 0.0, 0.05,
                 ""),  # no claim: the baseline without a graph
            )
        ),
    )
}  # fmt: skip
