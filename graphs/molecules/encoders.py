"""KCL's two encoders: a GCN on the molecule, and the knowledge-aware KMPNN on the molecule with its element attributes.

Source: Fang et al., "Molecular Contrastive Learning with Chemical Element Knowledge Graph", AAAI 2022.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch_geometric.nn.aggr import Set2Set
from torch_geometric.utils import scatter, softmax

from counterpoint.graphs.molecules.arrays import ATOM_FEATURES, BOND_TYPES
from counterpoint.graphs.molecules.featurize import MoleculeBatch


class AtomEmbedding(nn.Module):
    """Initial atom vectors: one table per feature, summed.

    `features="element"` uses the atomic number alone, as KCL does; `"full"` adds degree, charge, hydrogens,
    hybridization, aromaticity, ring membership, chirality and isotope.
    """

    def __init__(self, dim: int, features: str = "element"):
        super().__init__()
        if features not in ("element", "full"):
            raise ValueError(f"features must be 'element' or 'full', got {features!r}")
        used = ATOM_FEATURES if features == "full" else ATOM_FEATURES[:1]
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for _, size in used)

    def forward(self, atoms: Int[Tensor, "atoms features"]) -> Float[Tensor, "atoms dim"]:
        return torch.stack([table(atoms[:, i]) for i, table in enumerate(self.tables)]).sum(0)


class WeightedSumAndMax(nn.Module):
    """Readout: [sum_i sigmoid(w . h_i + b) h_i || max_i h_i].

    >>> import torch
    >>> WeightedSumAndMax(4)(torch.ones(3, 4), torch.tensor([0, 0, 1]), 2).shape
    torch.Size([2, 8])
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gate = nn.Linear(dim, 1)
        self.out_dim = 2 * dim

    def forward(
        self, h: Float[Tensor, "atoms dim"], graph: Int[Tensor, " atoms"], n_graphs: int
    ) -> Float[Tensor, "graphs twice"]:
        weighted = scatter(self.gate(h).sigmoid() * h, graph, dim_size=n_graphs, reduce="sum")
        largest = scatter(h, graph, dim_size=n_graphs, reduce="max")
        return torch.cat([weighted, largest], 1)


class MoleculeGCN(nn.Module):
    """The plain view: `n_layers` graph convolutions with a residual branch, then `WeightedSumAndMax`.

        h_i <- act( sum_{j in N(i)} W h_j + b ) + act( R h_i + c )

    Args:
        dim: of the atom embedding; `hidden` of the layers; the graph vector has 2 `hidden` numbers.
    """

    def __init__(self, dim: int = 128, hidden: int = 64, n_layers: int = 2, atom_features: str = "element"):
        super().__init__()
        self.embedding = AtomEmbedding(dim, atom_features)
        widths = [dim] + [hidden] * n_layers
        self.message = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.residual = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.readout = WeightedSumAndMax(hidden)
        self.out_dim = self.readout.out_dim

    def forward(self, batch: MoleculeBatch) -> Float[Tensor, "graphs out"]:
        h = self.embedding(batch.atoms)
        source, target = batch.bonds
        for message, residual in zip(self.message, self.residual, strict=True):
            summed = h.new_zeros(h.shape[0], message.out_features).index_add(
                0, target, nn.functional.linear(h, message.weight)[source]
            )
            h = nn.functional.gelu(summed + message.bias) + nn.functional.gelu(residual(h))
        return self.readout(h, batch.graph, batch.n_graphs)


class KMPNN(nn.Module):
    """The knowledge-aware view: attention over bonds and over attribute relations, kept apart, then Set2Set.

        e_ij      = LeakyReLU(a . [h_i || h_j])
        alpha_ij  = softmax over the in-edges of one kind (bond, relation) of node j
        m_j       = sum_kinds sum_{i in N_kind(j)} alpha_ij W_kind(x_ij) h_i + b
        h_j      <- GRU(ReLU(m_j), h_j)

    W_kind(x) is an MLP of the edge's embedding x (one vector per bond type or relation), hidden `edge_hidden`. The
    same layer runs `steps` times. Attribute nodes have no in-edges: they send and do not receive. So one attribute has
    the same state in every molecule of a batch, and is computed once; only the readout sees it in each molecule.

    Args:
        n_nodes: size of the node table (elements and attributes); n_relations: of the element graph.
        dim: of the node table (128: its initial values may come from RotatE); hidden: of the layer.
    """

    def __init__(
        self, n_nodes: int, n_relations: int, dim: int = 128, hidden: int = 64, edge_dim: int = 64,
        edge_hidden: int = 128, steps: int = 6, readout_steps: int = 6, readout_layers: int = 3,
    ):  # fmt: skip
        super().__init__()
        self.nodes = nn.Embedding(n_nodes, dim)
        self.bond_types = nn.Embedding(len(BOND_TYPES), edge_dim)
        self.relations = nn.Embedding(n_relations, edge_dim)
        self.project = nn.Linear(dim, hidden)

        def edge_network() -> nn.Module:
            return nn.Sequential(nn.Linear(edge_dim, edge_hidden), nn.ReLU(), nn.Linear(edge_hidden, hidden * hidden))

        self.bond_network, self.relation_network = edge_network(), edge_network()
        self.attention = nn.Linear(2 * hidden, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.gru = nn.GRUCell(hidden, hidden)
        self.readout = Set2Set(hidden, processing_steps=readout_steps, num_layers=readout_layers)
        self.hidden, self.steps, self.out_dim = hidden, steps, 2 * hidden

    def forward(self, batch: MoleculeBatch) -> Float[Tensor, "graphs out"]:
        atoms, attributes, copy = self.node_states(batch)
        h = torch.cat([atoms, attributes[copy]])
        graph = torch.cat([batch.graph, batch.attribute_graph])
        order = torch.argsort(graph, stable=True)
        return self.readout(h[order], graph[order], dim_size=batch.n_graphs)

    def node_states(
        self, batch: MoleculeBatch
    ) -> tuple[Float[Tensor, "atoms hidden"], Float[Tensor, "distinct hidden"], Int[Tensor, " attributes"]]:
        """States after the last step: of the atoms, of the batch's distinct attributes, and which of these each
        attribute node of a molecule is."""
        distinct, copy = torch.unique(batch.attributes, return_inverse=True)
        atoms, attributes = (nn.functional.relu(self.project(self.nodes(i))) for i in (batch.atoms[:, 0], distinct))
        kinds, bond_kind = torch.unique(batch.bond_features[:, 0], return_inverse=True)
        bonds = (batch.bonds, bond_kind, self._matrices(self.bond_network, self.bond_types)[kinds])
        # A column for each (attribute, relation) of the batch; `has` says which of them each atom's element has.
        node, atom = batch.attribute_edges
        n_relations = self.relations.num_embeddings
        columns, column = torch.unique(copy[node] * n_relations + batch.attribute_relation, return_inverse=True)
        has = torch.zeros(len(atoms), len(columns), dtype=torch.bool, device=atoms.device)
        has[atom, column] = True
        sender, relation = columns // n_relations, columns % n_relations
        matrices = self._matrices(self.relation_network, self.relations)[relation]
        for _ in range(self.steps):
            sent = (matrices @ attributes[sender][:, :, None])[:, :, 0]
            message = self._messages(atoms, *bonds) + self._attention(attributes[sender], atoms, has) @ sent + self.bias
            atoms = self.gru(nn.functional.relu(message), atoms)
            attributes = self.gru(nn.functional.relu(self.bias).expand_as(attributes), attributes)
        return atoms, attributes, copy

    def _matrices(self, network: nn.Module, table: nn.Embedding) -> Float[Tensor, "kinds hidden hidden"]:
        """W(x) of every edge kind at once: there are few kinds, and many edges of each."""
        return network(table.weight).view(-1, self.hidden, self.hidden)

    def _score(self, senders: Tensor, receivers: Tensor) -> tuple[Tensor, Tensor]:
        """a . [h_i || h_j] = a_1 . h_i + a_2 . h_j: two products per node instead of one per edge."""
        left, right = self.attention.weight[0].split(self.hidden)
        return senders @ left, receivers @ right

    def _attention(
        self, senders: Float[Tensor, "columns hidden"], atoms: Float[Tensor, "atoms hidden"],
        has: Bool[Tensor, "atoms columns"],
    ) -> Float[Tensor, "atoms columns"]:  # fmt: skip
        """alpha of the relations: few attributes and every atom has several, so the weights are a dense matrix. An atom
        without any (an unknown or masked element) has weights of zero."""
        left, right = self._score(senders, atoms)
        score = nn.functional.leaky_relu(left + right[:, None], 0.2).masked_fill(~has, -torch.inf)
        top = score.detach().amax(1, keepdim=True).clamp_min(torch.finfo(score.dtype).min)
        weight = (score - top).exp()
        return weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(score.dtype).tiny)

    def _messages(
        self, h: Float[Tensor, "nodes hidden"], edges: Int[Tensor, "2 edges"], kind: Int[Tensor, " edges"],
        matrices: Float[Tensor, "kinds hidden hidden"],
    ) -> Float[Tensor, "nodes hidden"]:  # fmt: skip
        """sum_i alpha_ij W_kind(i, j) h_i over the edges i -> j."""
        source, target = edges
        left, right = self._score(h, h)
        alpha = softmax(nn.functional.leaky_relu(left[source] + right[target], 0.2), target, num_nodes=len(h))
        # W h of every kind in one product, then each edge picks its own: atoms have few bonds, of few kinds.
        sent = (h @ matrices.flatten(0, 1).T).view(-1, self.hidden)
        return torch.zeros_like(h).index_add(0, target, alpha[:, None] * sent[source * len(matrices) + kind])
