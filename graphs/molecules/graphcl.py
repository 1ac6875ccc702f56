r"""GraphCL on molecules: two augmented copies of each molecule against all others. KCL's baseline, same encoder.

    z = P(readout(GCN(view_1(G)))),  z' likewise,
    l_i = -log( exp(cos(z_i, z'_i) / T) / sum_{j != i} exp(cos(z_i, z'_j) / T) )      (denominator: our reading)

Source: You et al., "Graph Contrastive Learning with Augmentations", NeurIPS 2020.

Where its terms stand:

    l_i                    graphs/molecules/graphcl.py: GraphCL.losses
    l_i with j = i too     common/losses/ntxent.py: NTXent
    views                  graphs/molecules/views.py: augment
    GCN, readout           graphs/molecules/encoders.py: MoleculeGCN, WeightedSumAndMax
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal, Self
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.common.trainers.inputs import Input
from counterpoint.graphs.configs import GraphCLConfig
from counterpoint.graphs.molecules import recipe
from counterpoint.graphs.molecules.data import molecule_datasets
from counterpoint.graphs.molecules.encoders import MoleculeGCN
from counterpoint.graphs.molecules.recipe import molecules_of
from counterpoint.graphs.molecules.views import augment


class GraphCL(ContrastiveSystem):
    """The system `graphcl`. Embeddings: `view1`, `view2`; it encodes `molecule`."""

    Config = GraphCLConfig
    presets = GraphCLConfig.presets
    modalities = ("view1", "view2")
    inputs: ClassVar[dict[str, Input]] = {k: v for k, v in recipe.INPUTS.items() if k != "bond_features"}

    def __init__(self, config: GraphCLConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.gcn = MoleculeGCN(config.node_dim, config.hidden, config.layers, config.atom_features)
        out = self.gcn.out_dim
        self.projector = nn.Sequential(
            nn.Linear(out, config.projector_hidden), nn.ReLU(), nn.Linear(config.projector_hidden, out)
        )
        self.contrast = contrast_of(config, NTXent(config.temperature))

    @classmethod
    def read(cls, config: GraphCLConfig, assets: Assets | None = None) -> Datasets | None:
        """The manifest's splits; nothing without a manifest."""
        return molecule_datasets(config.data, config.train) if config.data.manifest else None

    def datasets(self) -> Datasets:
        return self.data or molecule_datasets(self.config.data, self.config.train)

    def example(self) -> dict[str, Tensor]:
        """Molecules as tensors alone."""
        return {name: value for name, value in recipe.example().items() if name in self.inputs}

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        molecules = batch["molecule"]
        views = [augment(molecules, view, self.config.ratio) for view in self.config.views]
        return {name: self.projector(self.gcn(view)) for name, view in zip(("view1", "view2"), views, strict=True)}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.config.positive_in_denominator or self.config.objective:
            return contrast_terms(self.contrast, "nt_xent", embeddings, batch)
        one, two = unit(embeddings["view1"], dim=1), unit(embeddings["view2"], dim=1)
        stats = self.contrast.stats(one, two, scale=1 / self.config.temperature, positive=Diagonal(), exclude=Self())
        return {"graphcl": torch.where(stats.count > 0, stats.lse - stats.positive, torch.zeros_like(stats.lse))}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The graph vector of the molecule itself, before the projector, for property predictors."""
        return {"molecule": self.gcn(molecules_of(batch, bond_features=False))}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The same vector at unit length, for search."""
        return {"molecule": unit(self.gcn(molecules_of(batch, bond_features=False)), dim=1)}
