"""Molecules through the scikit-learn door."""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from counterpoint.common import runs
from counterpoint.common.data import Manifest
from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.errors import InputError
from counterpoint.common.estimators import Encoder

SMILES = ["OCC", "CCN", "c1ccccc1", "CC(=O)O", "CCCC", "O", "C1CCCCC1", "CNC", "CCCl", "CBr", "[Na+].[Cl-]", "C#N"]
TINY = {"preset": "small", "train__max_steps": 2, "train__batch_size": 6, "train__accelerator": "cpu"}


@pytest.fixture(scope="module")
def fitted():
    return Encoder("graphcl", **TINY).fit(SMILES)


@pytest.mark.parametrize("system", ["graphcl", "kcl"])
def test_the_same_vectors_as_embed_gives_of_a_manifest(system, tmp_path):
    options = {"rotate_epochs": 1} if system == "kcl" else {}
    own = Encoder(system, **TINY, **options, run_folder=tmp_path / "run").fit(SMILES)
    rows = [{"id": f"m{i}", "smiles": Chem.CanonSmiles(s), "split": "test"} for i, s in enumerate(SMILES)]
    Manifest.from_rows(rows).save(tmp_path / "manifest.csv")
    runs.embed(tmp_path / "run", tmp_path / "vectors", split="train", manifest=tmp_path / "manifest.csv")
    store = EmbeddingStore(tmp_path / "vectors")
    np.testing.assert_array_equal(own.transform(SMILES), np.asarray(store.vectors("molecule")))
    with pytest.raises(InputError, match="trained on data given in Python"):
        runs.embed(tmp_path / "run", split="train")


def test_every_form_of_a_column(fitted):
    expected = fitted.transform(SMILES)
    molecules = [Chem.MolFromSmiles(s) for s in SMILES]
    frame = pd.DataFrame({"smiles": SMILES})
    forms = [
        tuple(SMILES), np.array(SMILES), np.array(SMILES, dtype=object)[:, None], pd.Series(SMILES), frame,
        frame["smiles"].astype("string"), molecules, pd.Series(molecules, name="ROMol"),
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_array_equal(fitted.transform(form), expected)


def test_validation_and_groups_keep_families_whole(tmp_path):
    families = np.arange(12) // 2
    one = Encoder("graphcl", **TINY, validation_fraction=0.3, run_folder=tmp_path / "run").fit(SMILES, groups=families)
    assert "val/loss" in one.metrics_


@pytest.mark.parametrize("bad", ["C(", "", None, float("nan"), pd.NA, 3, "C" * 6000])
def test_what_is_no_molecule_is_named_or_missing(bad, fitted):
    with pytest.raises(InputError, match=r"X\[12\] .*train__on_error=skip"):
        fitted.transform([*SMILES, bad])
    lenient = Encoder("graphcl", **TINY, train__on_error="skip", train__max_bad=0.1)
    with pytest.warns(UserWarning, match=r"X\[12\] .*: not trained on"):
        lenient.fit([*SMILES, bad])
    with pytest.warns(UserWarning, match=r"X\[0\] .*: NaN in the result"):
        found = lenient.transform([bad, *SMILES])
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [0]
    np.testing.assert_array_equal(found[1:], lenient.transform(SMILES))
    strict = lenient.set_params(train__max_bad=0.01)
    with pytest.raises(InputError, match=r"1 of 13 samples .* more than a share of 0.01 \(train__max_bad"):
        strict.fit([*SMILES, bad])


@pytest.mark.parametrize(
    ("x", "words"),
    [(np.zeros((3, 4)), "give molecules as SMILES"), ("CCO", "one text"), (b"CCO", "one text"),
     (pd.DataFrame({"a": SMILES, "b": SMILES}), "could not convert string|give molecules as SMILES")],
)  # fmt: skip
def test_other_data_are_refused(x, words, fitted):
    for call in (Encoder("graphcl", **TINY).fit, fitted.transform):
        with pytest.raises(ValueError, match=words):
            call(x)


@pytest.mark.parametrize("system", ["circuitgcl", "gcool", "pamc", "grace", "bgrl", "meow"])
def test_systems_of_files_and_of_one_graph_say_so(system):
    with pytest.raises(InputError, match="learns from files of graphs, not from rows of X"):
        Encoder(system).fit(SMILES)


def test_several_embeddings_are_chosen_from():
    kcl = {**TINY, "rotate_epochs": 1, "what": "features"}
    with pytest.raises(InputError, match="several embeddings; choose by modality=: molecule, knowledge"):
        Encoder("kcl", **kcl).fit(SMILES)
    one, two = (Encoder("kcl", **kcl, modality=name).fit_transform(SMILES) for name in ("molecule", "knowledge"))
    assert one.shape != two.shape or (one != two).any()
