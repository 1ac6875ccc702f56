"""Which atoms a prediction rests on: each atom's features are hidden in turn, and the prediction is made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from rdkit.Chem.Draw import rdMolDraw2D
from torch import Tensor

from counterpoint.graphs.molecules.featurize import MoleculeBatch, join_molecules, molecule_graph
from counterpoint.graphs.molecules.smiles import parse_smiles


@torch.no_grad()
def atom_attributions(
    predict: Callable[[MoleculeBatch], Float[Tensor, " graphs"]], smiles: str
) -> Float[Tensor, " atoms"]:
    """What each atom adds to a prediction, in RDKit's order of the SMILES' atoms.

        a_i = f(G) - f(G with the features of atom i unknown)

    Bonds stay, so the skeleton is the same in all copies; atoms that speak for each other share little. It needs no
    gradient: `predict` may be any function of a batch, e.g. `lambda b: head(encoder(b))[:, 0]` in evaluation mode.

    >>> oxygens = lambda batch: torch.bincount(batch.graph, (batch.atoms[:, 0] == 8).double())
    >>> atom_attributions(oxygens, "CCO").tolist()
    [0.0, 0.0, 1.0]
    """
    graph = molecule_graph(smiles)
    n = len(graph.atoms)
    copies = join_molecules([graph] * (n + 1))
    atoms = copies.atoms.clone()
    each = torch.arange(n)
    atoms[(each + 1) * n + each] = 0  # copy 0 is whole; atomic number 0 means "no element"
    values = predict(replace(copies, atoms=atoms))
    return values[0] - values[1:]


def attribution_drawing(smiles: str, attributions: Float[Tensor, " atoms"], width: int = 320, height: int = 240) -> str:
    """The structure as SVG markup; atoms that raise the prediction are underlaid in red, those that lower it in blue,
    the stronger the further from zero (relative to the strongest)."""
    molecule = parse_smiles(smiles)
    if len(attributions) != molecule.GetNumAtoms():
        raise ValueError(f"{molecule.GetNumAtoms()} atoms need as many attributions, got {len(attributions)}")
    share = (attributions / attributions.abs().max().clamp_min(1e-12)).tolist()
    colours = {
        i: (1.0, 1 - 0.7 * s, 1 - 0.7 * s) if s > 0 else (1 + 0.7 * s, 1 + 0.7 * s, 1.0) for i, s in enumerate(share)
    }
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    rdMolDraw2D.PrepareAndDrawMolecule(
        drawer, molecule, highlightAtoms=list(colours), highlightAtomColors=colours, highlightBonds=[]
    )
    drawer.FinishDrawing()
    svg = drawer.GetDrawingText()
    return svg[svg.index("<svg") :]
