"""Capacitance models trained on some circuits and tested on others, with and without pretrained node vectors.

Everything that is fitted (label scales, statistics, models) sees the training circuits alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.metrics import Result, score_regression
from counterpoint.common.progress import note
from counterpoint.common.runs.opened import OpenRun
from counterpoint.graphs.circuits.data import read_circuits
from counterpoint.graphs.circuits.downstream import (
    CapacitanceModel,
    DownstreamConfig,
    Prepared,
    Statistics,
    ground_figures,
    predict_coupling,
    prepare,
    regression_figures,
    train_coupling,
    train_ground,
)
from counterpoint.graphs.circuits.graph import CapacitanceScale, CircuitGraph


@dataclass
class Transfer:
    """Training and test circuits with what the models read. `coupling` maps labels back to farad; `ground` is None
    where the training circuits state no capacitance to ground."""

    train: list[Prepared]
    test: list[Prepared]
    coupling: CapacitanceScale
    ground: CapacitanceScale | None
    config: DownstreamConfig

    @classmethod
    def of(
        cls, train: Sequence[CircuitGraph], test: Sequence[CircuitGraph], config: DownstreamConfig,
        vectors: Callable[[CircuitGraph], Tensor] | None = None,
    ) -> Transfer:  # fmt: skip
        """`vectors` gives the pretrained vectors of a circuit's nodes, e.g. `CircuitGCL.vectors`; None trains without.

        Raises `InputError` when the training circuits state no coupling capacitance.
        """
        statistics = Statistics.fit(train)
        coupling = CapacitanceScale.fit(torch.cat([g.coupling_farad for g in train]))
        to_ground = torch.cat([g.ground_farad for g in train])
        ground = CapacitanceScale.fit(to_ground) if (to_ground > 0).any() else None

        def ready(graph: CircuitGraph) -> Prepared:
            pretrained = None if vectors is None else vectors(graph)
            return prepare(graph, statistics, coupling, ground, pretrained, config.fanout)

        return cls([ready(g) for g in train], [ready(g) for g in test], coupling, ground, config)

    def coupling_model(self, loss: str = "mse", seed: int = 0) -> CapacitanceModel:
        """A regressor of coupling labels; `loss` is one of `downstream.LOSSES`."""
        return train_coupling(self.train, self.config, loss=loss, seed=seed)

    def coupling_figures(self, model: CapacitanceModel) -> dict[str, dict[str, float]]:
        """Figures of each test circuit that states a coupling capacitance."""
        return {
            p.name: regression_figures(predict_coupling(model, p, self.config), p.link_label)
            for p in self.test
            if len(p.link_label)
        }

    def ground_figures(self, *, balanced: bool, seed: int = 0) -> dict[str, dict[str, float]]:
        """Ground-capacitance classes of each test circuit's nets, after training on the training circuits'."""
        model = train_ground(self.train, self.config, balanced=balanced, seed=seed)
        return {p.name: ground_figures(model, p) for p in self.test if p.ground_label.isfinite().any()}


def protocols(run: OpenRun) -> dict[str, Result]:
    """Coupling capacitances of the run's test circuits, for `evaluate`: one model with the run's vectors, one without.

    Labels lie in 0..1 (log capacitance over the training circuits' range); chance predicts the training mean. Intervals
    draw nets: all pairs of a net together. One training of each model (seed of the run), with the `small` settings. The
    truth is the capacitance, whatever `run.label` says.
    """
    system = run.system
    manifest = Manifest.load(system.config.data.manifest)
    split = manifest.frame.get("split")
    if split is None:
        return {}
    graphs = dict(read_circuits(manifest, system.config.data.power, [], system.config.train.on_error))
    train, test = ([g for row, g in graphs.items() if split[row] == part] for part in ("train", "test"))
    if not any(len(g.coupling_farad) for g in train) or not any(len(g.coupling_farad) for g in test):
        return {}
    note(f"coupling capacitances: training on {', '.join(g.name for g in train)}, with and without the run's vectors")
    found: dict[str, Result] = {}
    config, seed = DownstreamConfig.small(), system.config.train.seed
    for arm, source in (("with the run's vectors", system.vectors), ("statistics alone", None)):
        transfer = Transfer.of(train, test, config, source)
        model = transfer.coupling_model(seed=seed)
        mean = float(torch.cat([p.link_label for p in transfer.train]).mean())
        for part in transfer.test:
            if len(part.link_label):
                predicted = predict_coupling(model, part, config).numpy()
                found[f"coupling of {part.name}, {arm}"] = score_regression(
                    predicted, part.link_label.numpy(), train_mean=mean, groups=part.links[0].numpy(),
                    n_boot=run.n_boot, seed=run.seed,
                )  # fmt: skip
    return found
