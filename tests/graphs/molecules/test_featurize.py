"""Molecular graphs: what stands in them, joined and augmented."""

import torch
from rdkit import Chem

from counterpoint.graphs.molecules.arrays import ATOM_FEATURES, BOND_FEATURES, BOND_TYPES
from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, periodic_table_graph
from counterpoint.graphs.molecules.featurize import (
    featurize,
    featurize_apart,
    join_molecules,
    molecule_graph,
    with_element_knowledge,
)

SMILES = ["CCO", "c1ccccc1C(=O)[O-]", "[Na+].[Cl-]", "[Ar]", "N->[Pt](Cl)(Cl)<-N", "[2H]C", "C/C=C/C#N", "C[C@H](N)O"]


def test_degrees_bonds_and_classes_agree_with_rdkit():
    for smiles in SMILES:
        graph, molecule = molecule_graph(smiles), Chem.MolFromSmiles(smiles)
        assert len(graph.atoms) == molecule.GetNumAtoms()
        degree = torch.bincount(graph.bonds[1], minlength=len(graph.atoms))
        assert degree.tolist() == [a.GetDegree() for a in molecule.GetAtoms()]
        for column, (_, classes) in enumerate(ATOM_FEATURES):
            assert graph.atoms[:, column].max() < classes
        for column, (_, classes) in enumerate(BOND_FEATURES):
            assert (graph.bond_features[:, column] < classes).all()


def test_atom_order_does_not_change_the_multiset_of_features():
    one, other = molecule_graph("OCC(N)=O"), molecule_graph("NC(=O)CO")
    assert sorted(map(tuple, one.atoms.tolist())) == sorted(map(tuple, other.atoms.tolist()))


def test_dative_bonds_and_isotopes_are_seen():
    platinum = molecule_graph("N->[Pt](Cl)(Cl)<-N")
    assert (platinum.bond_features[:, 0] == BOND_TYPES.index("dative")).sum() == 4
    assert molecule_graph("[2H]C").atoms[0, -1] == 1


def test_workers_give_the_same_graphs_in_order():
    many = SMILES * 5
    apart, problems = featurize_apart(many, workers=2, chunk=7)
    assert problems == {}
    for a, b in zip(featurize(many, chunk=7), apart, strict=True):
        assert torch.equal(a.atoms, b.atoms)
        assert torch.equal(a.bonds, b.bonds)
        assert torch.equal(a.bond_features, b.bond_features)


def test_a_batch_is_the_disjoint_union():
    graphs = [molecule_graph(s) for s in SMILES]
    batch = join_molecules(graphs)
    assert torch.equal(batch.graph[batch.bonds[0]], batch.graph[batch.bonds[1]])
    for i, graph in enumerate(graphs):
        inside = batch.graph == i
        assert torch.equal(batch.atoms[inside], graph.atoms)


def test_attributes_are_one_per_molecule_and_point_at_the_right_atoms():
    """Each atom has exactly its element's (attribute, relation) pairs; shared inside a molecule only."""
    knowledge = periodic_table_graph()
    batch = with_element_knowledge(join_molecules([molecule_graph(s) for s in SMILES]), knowledge)
    node, atom = batch.attribute_edges
    assert torch.equal(batch.attribute_graph[node], batch.graph[atom])
    for i, z in enumerate(batch.atoms[:, 0].tolist()):
        mine = atom == i
        pairs = zip((batch.attributes[node[mine]] - FIRST_ATTRIBUTE).tolist(), batch.attribute_relation[mine].tolist())
        assert sorted(pairs) == sorted(map(tuple, knowledge.of_element[z].tolist()))
    per_molecule = torch.stack([batch.attribute_graph, batch.attributes])
    assert torch.unique(per_molecule, dim=1).shape == per_molecule.shape


def test_each_feature_is_the_atoms_and_the_bonds_own():
    """Columns in the order of ATOM_FEATURES and BOND_FEATURES; both directions of a bond carry its features."""
    graph = molecule_graph("[13CH2]=C[O-]")
    # number, degree, charge + 6, hydrogens, hybridization (sp2 = 3), aromatic, in ring, chirality, isotope
    assert graph.atoms.tolist() == [
        [6, 1, 6, 2, 3, 0, 0, 0, 1],
        [6, 2, 6, 1, 3, 0, 0, 0, 0],
        [8, 1, 5, 0, 3, 0, 0, 0, 0],
    ]
    assert graph.bonds.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert graph.bond_features.tolist() == [[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]]


def test_a_part_of_a_batch_is_the_batch_of_its_part():
    knowledge = periodic_table_graph()
    graphs = [molecule_graph(s) for s in SMILES]
    whole = with_element_knowledge(join_molecules(graphs), knowledge)
    for start, stop in ((0, 2), (1, len(graphs)), (2, 2)):
        part, expected = whole.cut(start, stop), join_molecules(graphs[start:stop]) if stop > start else None
        assert len(part) == stop - start
        if expected is not None:
            expected = with_element_knowledge(expected, knowledge)
            for name, value in vars(expected).items():
                assert torch.equal(torch.as_tensor(getattr(part, name)), torch.as_tensor(value)), name
