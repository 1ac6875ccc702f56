"""Field formats to manifests: what is written, what is left out and why; the whole path at tiny size."""

import pytest

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import InputError
from counterpoint.graphs.importers import (
    check_row,
    circuits_to_manifest,
    molecules_to_manifest,
    simulate_to_manifest,
)
from counterpoint.graphs.molecules.splits import check_scaffold_leakage


def test_molecules_get_scaffold_groups_and_a_split(tmp_path):
    report = simulate_to_manifest(tmp_path, "molecules", 120, seed=1)
    manifest = Manifest.load(report.manifest)
    assert "synthetic" in report.note
    assert set(manifest.frame["split"]) == {"train", "val", "test"}
    check_scaffold_leakage(manifest.frame["smiles"].tolist(), manifest.frame["split"].tolist())
    assert manifest.meta["tasks"] == ["lipophilic", "logp", "tpsa"]


def test_generator_repeats_with_its_seed(tmp_path):
    one, two, other = (
        simulate_to_manifest(tmp_path / n, "molecules", 30, s) for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    frames = [Manifest.load(r.manifest).frame["smiles"].tolist() for r in (one, two, other)]
    assert frames[0] == frames[1] != frames[2]


def test_unusable_molecules_are_listed(tmp_path):
    (tmp_path / "m.csv").write_text("smiles,y\nCCO,1\nnonsense,0\nc1ccccc1C,0\nCC(C)O,1\nOCC,1\n")
    report = molecules_to_manifest(tmp_path / "m.csv", tmp_path / "out", split="none")
    assert report.rows == 3
    assert [r.source.rpartition(", ")[2] for r in report.rejected] == ["row 2", "row 5"]
    keys = Manifest.load(report.manifest).frame["inchikey"].tolist()
    assert keys[0] == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    assert len(set(keys)) == 3
    with pytest.raises(InputError, match="3 scaffold group.s. cannot be cut that way; .*choose --split random or none"):
        molecules_to_manifest(tmp_path / "m.csv", tmp_path / "out2")


def test_circuits_are_split_by_circuit_and_copied(tmp_path):
    report = simulate_to_manifest(tmp_path / "out", "circuits", 3, seed=0)
    manifest = Manifest.load(report.manifest)
    assert sorted(manifest.frame["split"]) == ["test", "test", "train"]
    for row in manifest.frame.to_dict("records"):
        assert (manifest.root / row["netlist"]).is_file()
        check_row(row, manifest.root)


def test_a_broken_netlist_is_listed_and_the_rest_goes_on(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "good.sp").write_text("M1 out in vss vss nmos w=1u l=1u\nC1 out in 1f\n")
    (source / "bad.sp").write_text(".subckt a b\nM1 x y nmos\n")
    report = circuits_to_manifest(source, tmp_path / "out")
    assert report.rows == 1
    assert report.rejected[0].source.endswith("bad.sp")
    assert report.rejected[0].reason.startswith("line 2: M1 needs")
    with pytest.raises(InputError, match="train names 'none', which is no circuit here"):
        circuits_to_manifest(source, tmp_path / "out2", train=("none",))
    (source / "good.sp").unlink()
    with pytest.raises(InputError, match="none of its 1 netlists can be used"):
        circuits_to_manifest(source, tmp_path / "out3")


def test_what_a_circuit_lacks_is_said(tmp_path):
    """Left-out capacitors, parameters, includes and unused parasitics; included files come along."""
    source = tmp_path / "in"
    (source / "lib").mkdir(parents=True)
    (source / "lib" / "cells.inc").write_text(".subckt inv a y\nM1 y a vss vss nmos w=w0 l=1u\n.ends\n")
    (source / "a.sp").write_text(
        ".include lib/cells.inc\n.include gone.sp\nX1 in out inv\nC1 in out -1f\nC2 in out 2f\n"
    )
    (source / "b.spef").write_text('*SPEF "x"\n')
    (source / "b.dspf").write_text(
        "*|DSPF 1.3\n*|NET in 1F\nC1 in 0 1f\n*|NET out 1F\nC2 in out 1f\n* instance section\nM1 out in 0 0 nmos\n"
    )
    report = circuits_to_manifest(source, tmp_path / "out")
    assert report.rows == 2
    assert (
        "a: gone.sp, which it includes, does not exist; 1 device parameter(s) without a value (nmos.w)" in report.note
    )
    assert "1 zero or negative capacitors dropped" in report.note
    manifest = Manifest.load(report.manifest)
    assert manifest.frame["couplings"].tolist() == [1, 1]
    assert "gone.sp" in manifest.frame["notes"][0]
    for row in manifest.frame.to_dict("records"):
        check_row(row, manifest.root)
    assert "b.spef: not used; give it the name of its netlist" in report.note
    with pytest.raises(InputError, match="no such file or folder"):
        circuits_to_manifest(tmp_path / "gone", tmp_path / "out3")


def test_rows_are_checked_with_reasons(tmp_path):
    with pytest.raises(InputError, match="'C1CC' is no SMILES"):
        check_row({"smiles": "C1CC"}, tmp_path)
    with pytest.raises(InputError, match="neither a smiles, a netlist nor a node"):
        check_row({}, tmp_path)
    with pytest.raises(InputError, match="gone.sp: no such file"):
        check_row({"netlist": "gone.sp"}, tmp_path)


def test_previews_are_pages(tmp_path):
    from counterpoint.graphs.gallery import preview_page

    for kind, n in (("molecules", 12), ("circuits", 2)):
        report = simulate_to_manifest(tmp_path / kind, kind, n, seed=0)
        page = tmp_path / f"{kind}.html"
        preview_page(report.manifest, page, 4)
        text = page.read_text()
        assert "<svg" in text or "image/svg+xml" in text


@pytest.mark.slow
def test_the_demo_runs_without_sample_data(tmp_path, monkeypatch):
    from counterpoint.graphs.commands import demo

    monkeypatch.delenv("COUNTERPOINT_DATA", raising=False)
    outcome = demo(tmp_path / "demo", epochs=1)
    assert "synthetic" in outcome.figures["data"]
    assert outcome.files["report"].stat().st_size > 50_000
    arms = {row["arm"] for row in outcome.figures["molecules"]}
    assert "ECFP4 + random forest" in arms
