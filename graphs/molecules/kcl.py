r"""KCL: a molecule against its twin augmented with chemical-element knowledge.

The augmented view adds one node per attribute of the molecule's elements (families, periods, radii, ...) with directed
edges to the atoms that have it. A GCN reads the molecule, a knowledge-aware message passing network (KMPNN) the twin;
both go through one projector:

    z_i  = P(readout_1(GCN(G_i))),   z'_i = P(readout_2(KMPNN(G'_i)))
    L    = NT-Xent over the 2 B vectors, logits 20 cos(., .)

Batches are made of similar molecules (Butina clusters), so that negatives are hard.

Where ours differs from the released code: both readouts are trained (there they are in no optimiser;
`freeze_readouts=True` restores that); attribute edges and bonds number atoms alike, so salts are wired rightly; atoms
without a bond stay in the graph; dative bonds have a type of their own. The published temperature argument (0.1) has
no effect in the released code, whose logits are multiplied by 20: that is the default here.

Source: Fang et al., "Molecular Contrastive Learning with Chemical Element Knowledge Graph", AAAI 2022.

Where its terms stand:

    NT-Xent                common/losses/ntxent.py: NTXent
    hard negatives         graphs/molecules/similar.py: butina_order, OrderedBatchSampler
    knowledge graph        graphs/molecules/element_kg.py: periodic_table_graph, read_triples
    augmented twin G'      graphs/molecules/featurize.py: with_element_knowledge
    GCN, KMPNN, readouts   graphs/molecules/encoders.py: MoleculeGCN, KMPNN, WeightedSumAndMax
    initial vectors        graphs/molecules/rotate.py: train_rotate
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.errors import InputError
from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.graphs.configs import KCLConfig
from counterpoint.graphs.molecules import recipe
from counterpoint.graphs.molecules.data import molecule_datasets
from counterpoint.graphs.molecules.element_kg import ElementGraph, periodic_table_graph, read_triples
from counterpoint.graphs.molecules.encoders import KMPNN, MoleculeGCN
from counterpoint.graphs.molecules.featurize import MoleculeBatch, with_element_knowledge
from counterpoint.graphs.molecules.recipe import molecules_of
from counterpoint.graphs.molecules.rotate import train_rotate
from counterpoint.graphs.molecules.similar import OrderedBatchSampler, butina_order


class KCL(ContrastiveSystem):
    """The system `kcl`. Embeddings: `molecule` (plain view) and `knowledge` (augmented view)."""

    Config = KCLConfig
    presets = KCLConfig.presets
    modalities = ("molecule", "knowledge")
    inputs = recipe.INPUTS

    def __init__(self, config: KCLConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.knowledge = ElementGraph.of_names(**self.assets["knowledge"])
        self.gcn = MoleculeGCN(config.node_dim, config.hidden, config.gcn_layers, config.atom_features)
        n_nodes, n_relations = self.knowledge.n_nodes, len(self.knowledge.relations)
        self.kmpnn = KMPNN(n_nodes, n_relations, config.node_dim, config.hidden, steps=config.kmpnn_steps)
        out = self.gcn.out_dim
        self.projector = nn.Sequential(
            nn.Linear(out, config.projector_hidden), nn.ReLU(), nn.Linear(config.projector_hidden, out)
        )
        self.contrast = contrast_of(config, NTXent(config.temperature))
        if config.freeze_readouts:
            for readout in (self.gcn.readout, self.kmpnn.readout):
                readout.requires_grad_(False)

    @classmethod
    def learn(cls, config: KCLConfig, data: Any) -> Assets:
        """The knowledge graph, so that a run does not need the file it was read from."""
        graph = read_triples(config.knowledge) if config.knowledge else periodic_table_graph()
        return Assets(knowledge=graph.names())

    def initialize(self) -> None:
        """RotatE's vectors become the initial tables."""
        config = self.config
        if not config.rotate_epochs:
            return
        table = train_rotate(self.knowledge, config.node_dim, epochs=config.rotate_epochs, seed=config.train.seed)
        elements = self.gcn.embedding.tables[0].weight
        with torch.no_grad():
            self.kmpnn.nodes.weight.copy_(table)
            elements.copy_(table[: len(elements)])

    @classmethod
    def read(cls, config: KCLConfig, assets: Assets | None = None) -> Datasets | None:
        """The manifest's splits; nothing without a manifest."""
        return molecule_datasets(config.data, config.train) if config.data.manifest else None

    def datasets(self) -> Datasets:
        return self.data or molecule_datasets(self.config.data, self.config.train)

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        if not self.config.similar_batches:
            return super().batch_sampler(dataset, batch_size, seed)
        return OrderedBatchSampler(butina_order(dataset.smiles, self.config.butina_threshold), batch_size, seed)

    def example(self) -> dict[str, Tensor]:
        """Molecules as tensors alone."""
        return recipe.example()

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        molecules: MoleculeBatch = batch["molecule"]
        knowledge = self._augmented(molecules)
        return {
            "molecule": self.projector(self.gcn(molecules)),
            "knowledge": self.projector(self.kmpnn(knowledge)),
        }

    def _augmented(self, molecules: MoleculeBatch) -> MoleculeBatch:
        """The molecules' twins with their elements' attributes."""
        if torch.compiler.is_exporting():
            raise InputError(
                "KCL's knowledge view has as many nodes as its molecules' elements have attributes, which no exported "
                "program can count: export the modality molecule, or the folder (from_pretrained encodes knowledge too)"
            )
        return with_element_knowledge(molecules, self.knowledge)

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return contrast_terms(self.contrast, "nt_xent", embeddings, batch)

    def features(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Graph vectors before the projector: what a property predictor uses. Their length carries the molecule's size
        (the readouts sum), so they are not normalised."""
        molecules = molecules_of(batch, bond_features=modality != "molecule")
        out = {}
        if modality in (None, "molecule"):
            out["molecule"] = self.gcn(molecules)
        if modality in (None, "knowledge"):
            out["knowledge"] = self.kmpnn(self._augmented(molecules))
        return out

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The same vectors at unit length, for search and evaluation: the molecule's, unless `knowledge` is asked for.
        Training aligns the two views behind the projector only, so that one is never searched with the other."""
        found = self.features(batch, modality or "molecule")
        return {name: normalize(vectors, dim=1) for name, vectors in found.items()}
