"""Structure drawings of molecules."""

from __future__ import annotations

from collections.abc import Sequence

from rdkit.Chem.Draw import rdMolDraw2D

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.smiles import parse_smiles
from counterpoint.graphs.molecules.watch import Watch


def depiction(smiles: str, width: int = 180, height: int = 135) -> str:
    """The structure drawing of a molecule as SVG markup, on a white ground, its letters large enough to read in a
    gallery."""
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    drawer.drawOptions().fixedBondLength = 24  # pixels: small molecules are not blown up
    drawer.drawOptions().minFontSize = 12
    drawer.drawOptions().padding = 0.03
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, parse_smiles(smiles))
    drawer.FinishDrawing()
    svg = drawer.GetDrawingText()
    return svg[svg.index("<svg") :]


def depictions(smiles: Sequence[str], watch: Watch) -> tuple[list[str], dict[int, str]]:
    """Drawings of a chunk of molecules, for `watch.map_watched`: empty, and the reason, where there is none."""
    drawn, problems = [], {}
    for i, text in enumerate(smiles):
        drawn.append("")
        problem = watch(i + 1)
        try:
            drawn[i] = "" if problem else depiction(text)
        except InputError as error:
            problem = str(error)
        if problem:
            problems[i] = problem
    return drawn, problems
