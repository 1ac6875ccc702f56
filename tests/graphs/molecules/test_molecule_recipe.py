"""An exported encoder's inputs made of SMILES by the words in the file alone, with RDKit: the same vectors."""

import json
import re

import jaxtyping
import numpy as np
import pytest
import torch
from rdkit import Chem, RDLogger

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, export, from_pretrained, override, save_pretrained
from counterpoint.graphs.configs import GraphCLConfig, KCLConfig
from counterpoint.graphs.molecules.data import collate_molecules
from counterpoint.graphs.molecules.featurize import join_molecules, molecule_graph
from counterpoint.graphs.molecules.graphcl import GraphCL
from counterpoint.graphs.molecules.kcl import KCL
from counterpoint.graphs.molecules.recipe import molecules_of, tensors_of

RDLogger.DisableLog("rdApp.*")
SMALL = {"hidden": 8, "node_dim": 8}
SYSTEMS = [(GraphCL, GraphCLConfig, {}), (KCL, KCLConfig, {"rotate_epochs": 0})]
MOLECULES = ["OCC", "C[N+](C)(C)CC(=O)[O-]", "F/C=C/Cl", "F/C=C\\Cl", "N[C@@H](C)C(=O)O", "N[C@H](C)C(=O)O",
             "[13CH4]", "[Na+].[Cl-]", "c1ccc2[nH]ccc2c1", "C#N", "*CC",
             "FS(F)(F)(F)(F)F", "[NH3]->[Fe]", "O=P(O)(O)O"]  # fmt: skip


def numbered(about, what):
    """The numbers that the words give: `(what: 1 S, 2 SP, ...)` -> {"S": 1, ...}."""
    said = re.search(rf"{what}:? (\d .*?)[);]", about)[1]
    return {name.strip(): int(n) for n, name in (part.strip().split(" ", 1) for part in said.split(","))}


def bond_types(about):
    types = {name.upper(): number for name, number in numbered(about, "GetBondType").items()}
    return types | dict.fromkeys(["DATIVEONE", "DATIVEL", "DATIVER"], types["DATIVE"])


def made(smiles, said):
    """The tensors of molecules as the recipe's words have them."""
    hybrids = numbered(said["atoms"]["about"], "GetHybridization")
    types = bond_types(said["bond_features"]["about"]) if "bond_features" in said else {}
    atoms, ends, kinds, sizes = [], [], [], []
    for text in smiles:
        molecule = Chem.MolFromSmiles(text)
        shift = len(atoms)
        for i in range(molecule.GetNumAtoms()):
            a = molecule.GetAtomWithIdx(i)
            atoms.append([a.GetAtomicNum(), min(a.GetDegree(), 11), max(-6, min(6, a.GetFormalCharge())) + 6,
                          min(a.GetTotalNumHs(), 8), hybrids.get(str(a.GetHybridization()), 0), a.GetIsAromatic(),
                          a.IsInRing(), min(int(a.GetChiralTag()), 3), a.GetIsotope() > 0])  # fmt: skip
        for i in range(molecule.GetNumBonds()):
            b = molecule.GetBondWithIdx(i)
            one, other = b.GetBeginAtomIdx() + shift, b.GetEndAtomIdx() + shift
            ends += [[one, other], [other, one]]
            kind = types.get(str(b.GetBondType()), types.get("OTHER", 0))
            kinds += 2 * [[kind, min(int(b.GetStereo()), 5), b.GetIsConjugated(), b.IsInRing()]]
        sizes.append(molecule.GetNumAtoms())
    found = {"atoms": np.array(atoms), "bonds": np.array(ends).reshape(-1, 2).T, "sizes": np.array(sizes)}
    found["bond_features"] = np.array(kinds).reshape(-1, 4)
    return {name: value.astype(np.int64) for name, value in found.items()}


@pytest.fixture
def free_shapes():
    """Tracing calls with sizes that are symbols, which checks of shapes would bind to numbers."""
    known = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", known)


@pytest.mark.usefixtures("free_shapes")
@pytest.mark.parametrize("system", SYSTEMS, ids=["graphcl", "kcl"])
@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_an_exported_files_words_make_its_inputs_of_smiles(system, format, tmp_path):
    """All atom features count; other molecules than the traced ones; one alone and an atom without a bond too."""
    own, config, more = system
    model = create_system(own, override(config(), {**SMALL, **more, "atom_features": "full"})).eval()
    path = tmp_path / f"m.{format}"
    report = export(model, path, modality="molecule")
    assert not report.notes
    assert report.shapes["atoms"] == "[atoms, features = 9] int64"
    assert report.shapes["sizes"] == "[molecules] int64"
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(path))
        recipe = json.loads(session.get_modelmeta().custom_metadata_map["counterpoint.preprocessing"])
    else:
        kept = {"counterpoint.preprocessing": ""}
        program = torch.export.load(path, extra_files=kept).module()
        recipe = json.loads(kept["counterpoint.preprocessing"])
    said = recipe["inputs"]
    assert {name: said[name]["axes"] for name in report.inputs} == {
        "atoms": ["atoms", "features"],
        "bonds": ["ends", "bonds"],
        "sizes": ["molecules"],
    }
    for smiles in (MOLECULES, MOLECULES[:1]):
        given = made(smiles, said)
        if format == "onnx":
            (found,) = session.run(None, {name: given[name] for name in report.inputs})
        else:
            (found,) = (v.detach().numpy() for v in program(*(torch.from_numpy(given[n]) for n in report.inputs)))
        samples = [{"molecule": molecule_graph(s), "id": s} for s in smiles]
        with torch.no_grad():
            expected = model.encode(collate_molecules(samples))["molecule"].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_saved_folders_words_make_the_inputs_of_both_views(tmp_path):
    """`from_pretrained` encodes tensors as it encodes the reader's molecules, with the knowledge graph from its assets;
    features of bonds count in the knowledge view."""
    model = create_system(KCL, override(KCLConfig(), {**SMALL, "rotate_epochs": 0})).eval()
    folder = save_pretrained(model, tmp_path / "model")
    said = json.loads((folder / "preprocessing.json").read_text())["inputs"]
    given = {name: torch.from_numpy(value) for name, value in made(MOLECULES, said).items()}
    theirs = tensors_of(join_molecules([molecule_graph(s) for s in MOLECULES]))
    assert list(said) == list(theirs)
    for name, value in theirs.items():
        assert torch.equal(given[name], value), name
    again = from_pretrained(folder)
    for view in ("molecule", "knowledge"):
        with torch.no_grad():
            expected = model.encode({"molecule": molecules_of(theirs)}, view)
            torch.testing.assert_close(again.encode(given, view), expected)


def test_the_knowledge_view_is_no_exported_program(tmp_path):
    model = create_system(KCL, override(KCLConfig(), {**SMALL, "rotate_epochs": 0})).eval()
    with pytest.raises(InputError, match="knowledge view .* export the modality molecule, or the folder"):
        export(model, tmp_path / "m.onnx", modality="knowledge")
    assert not (tmp_path / "m.onnx").exists()
