"""KCL's encoders: equal to their written-out equations, and blind to the order of atoms and molecules."""

import pytest
import torch

from counterpoint.graphs.molecules.element_kg import periodic_table_graph
from counterpoint.graphs.molecules.encoders import KMPNN, MoleculeGCN, WeightedSumAndMax
from counterpoint.graphs.molecules.featurize import join_molecules, molecule_graph, with_element_knowledge

SMILES = ["CCO", "c1ccccc1C(=O)[O-]", "[Na+].[Cl-]", "[Ar]", "CC#N"]


@pytest.fixture
def knowledge():
    return periodic_table_graph()


def batch_of(smiles, knowledge):
    return with_element_knowledge(join_molecules([molecule_graph(s) for s in smiles]), knowledge)


def make(kind, knowledge):
    torch.manual_seed(0)
    if kind == "gcn":
        return MoleculeGCN(16, 8, atom_features="full").double()
    return KMPNN(knowledge.n_nodes, len(knowledge.relations), 16, 8, 4, 8, steps=3, readout_steps=2).double()


@pytest.mark.parametrize("kind", ["gcn", "kmpnn"])
def test_each_molecule_is_encoded_alone(kind, knowledge):
    """A molecule's vector does not depend on its batch, nor on the order of its atoms."""
    model = make(kind, knowledge)
    together = model(batch_of(SMILES, knowledge))
    for i, smiles in enumerate(SMILES):
        torch.testing.assert_close(model(batch_of([smiles], knowledge))[0], together[i], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(batch_of(["OCC"], knowledge))[0], together[0], rtol=1e-9, atol=1e-9)


def test_kmpnn_messages_equal_the_equation_edge_by_edge(knowledge):
    model = make("kmpnn", knowledge)
    h = torch.randn(5, 8, dtype=torch.float64)
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 0, 1, 1, 3, 3]])
    kind = torch.tensor([0, 1, 0, 2, 0, 1])
    matrices = torch.randn(3, 8, 8, dtype=torch.float64)
    expected = torch.zeros(5, 8, dtype=torch.float64)
    a = model.attention.weight[0]
    for j in range(5):
        incoming = [e for e in range(6) if edges[1, e] == j]
        if incoming:
            scores = [torch.nn.functional.leaky_relu(a @ torch.cat([h[edges[0, e]], h[j]]), 0.2) for e in incoming]
            alphas = torch.stack(scores).softmax(0)
            for alpha, e in zip(alphas, incoming, strict=True):
                expected[j] += alpha * matrices[kind[e]] @ h[edges[0, e]]
    torch.testing.assert_close(model._messages(h, edges, kind, matrices), expected)


def test_kmpnn_states_equal_the_equations_node_by_node(knowledge):
    """Attribute nodes of each molecule written out one by one, as the paper's figure has them; `[Na+]` has no bond, `*`
    no attribute."""
    model = make("kmpnn", knowledge)
    with torch.no_grad():
        model.bias.normal_()
    batch = batch_of(["CC#N", "[Na+].O", "*C"], knowledge)
    n, ids = len(batch.atoms), [*batch.atoms[:, 0].tolist(), *batch.attributes.tolist()]
    node, atom = batch.attribute_edges.tolist()
    edges = {
        "bond": list(zip(*batch.bonds.tolist(), batch.bond_features[:, 0].tolist(), strict=True)),
        "relation": [(n + i, j, r) for i, j, r in zip(node, atom, batch.attribute_relation.tolist(), strict=True)],
    }
    assert len(ids) > n + len(set(ids[n:]))  # shared attributes are nodes of their own in each molecule
    tables = {"bond": (model.bond_network, model.bond_types), "relation": (model.relation_network, model.relations)}
    h = torch.relu(model.project(model.nodes(torch.tensor(ids))))
    for _ in range(model.steps):
        message = model.bias.expand(len(ids), -1).clone()
        for kind, (network, table) in tables.items():
            for j in range(len(ids)):
                incoming = [(i, x) for i, target, x in edges[kind] if target == j]
                if incoming:
                    scores = [model.attention(torch.cat([h[i], h[j]])) for i, _ in incoming]
                    alphas = torch.nn.functional.leaky_relu(torch.cat(scores), 0.2).softmax(0)
                    for alpha, (i, x) in zip(alphas, incoming, strict=True):
                        w = network(table(torch.tensor(x))).view(model.hidden, model.hidden)
                        message[j] = message[j] + alpha * w @ h[i]
        h = model.gru(torch.relu(message), h)
    atoms, attributes, copy = model.node_states(batch)
    torch.testing.assert_close(torch.cat([atoms, attributes[copy]]), h)


def test_element_attributes_reach_the_molecule(knowledge):
    """Changing the table row of an attribute that carbon has changes ethanol and not argon."""
    model = make("kmpnn", knowledge)
    before = model(batch_of(["CCO", "[Ar]"], knowledge))
    attribute = next(a for a, r in knowledge.of_element[6] if knowledge.relations[r] == "group")
    with torch.no_grad():
        model.nodes.weight[119 + attribute] += 1.0
    after = model(batch_of(["CCO", "[Ar]"], knowledge))
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_readout_is_the_gated_sum_and_the_maximum():
    readout = WeightedSumAndMax(3).double()
    h = torch.randn(4, 3, dtype=torch.float64)
    out = readout(h, torch.tensor([0, 0, 0, 1]), 2)
    gate = torch.sigmoid(h @ readout.gate.weight[0] + readout.gate.bias)
    torch.testing.assert_close(out[0], torch.cat([(gate[:3, None] * h[:3]).sum(0), h[:3].max(0).values]))


def test_graph_vectors_have_128_numbers_at_full_scale(knowledge):
    """Both views end in the 128 numbers that the shared projector takes."""
    assert MoleculeGCN().out_dim == KMPNN(knowledge.n_nodes, len(knowledge.relations)).out_dim == 128
