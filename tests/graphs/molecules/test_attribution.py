"""Hiding atoms one at a time: what is read off the molecule comes back at its atoms."""

import pytest
import torch

from counterpoint.graphs.molecules.attribution import atom_attributions, attribution_drawing
from counterpoint.graphs.molecules.encoders import MoleculeGCN


def test_a_sum_over_atoms_is_taken_apart_into_them():
    def heteroatoms(batch):
        z = batch.atoms[:, 0]
        return torch.bincount(batch.graph, 2.0 * (z == 8) - 1.0 * (z == 7), minlength=batch.n_graphs)

    assert atom_attributions(heteroatoms, "NCC(=O)O").tolist() == [-1.0, 0.0, 0.0, 2.0, 2.0]


def test_equivalent_atoms_get_equal_shares_of_a_networks_prediction():
    torch.manual_seed(0)
    model = MoleculeGCN(8, 8).eval()
    found = atom_attributions(lambda batch: model(batch).sum(1), "c1ccccc1")
    torch.testing.assert_close(found, found[0].expand(6))
    assert found.abs().max() > 0
    para = atom_attributions(lambda batch: model(batch).sum(1), "Cc1ccc(C)cc1")
    torch.testing.assert_close(para[0], para[5])


def test_drawings_colour_the_atoms():
    svg = attribution_drawing("CCO", torch.tensor([0.0, -0.5, 1.0]))
    assert svg.startswith("<svg")
    assert "#FF4C4C" in svg.upper()
    with pytest.raises(ValueError, match="3 atoms need as many attributions, got 2"):
        attribution_drawing("CCO", torch.zeros(2))
