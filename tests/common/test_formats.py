"""Formats by name: the suite's, a vertical's, another package's."""

import sys

import pytest

from counterpoint.common.formats import EXPORTS, Format, embedding_formats, export_formats, in_words


def test_a_verticals_formats_stand_beside_the_suites():
    own = Format("nifti", ".nii.gz", "a volume a sample", "m:write")
    assert list(embedding_formats((own,))) == ["parquet", "nifti"]
    assert "nifti (.nii.gz): a volume a sample" in in_words(embedding_formats((own,)))
    with pytest.raises(TypeError, match="format 'onnx' already"):
        export_formats((Format("onnx", ".onnx", "", "m:write"),))


def test_another_package_registers_one(tmp_path, monkeypatch):
    metadata = tmp_path / "bundles-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bundles\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[counterpoint.export_formats]\nbundle = bundles_light:bundle\n")
    (tmp_path / "bundles_light.py").write_text(
        "from counterpoint.common.formats import Format\nbundle = Format('bundle', '.zip', 'a bundle', 'm:write')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert list(export_formats()) == [*(f.name for f in EXPORTS), "bundle"]
    finally:
        sys.modules.pop("bundles_light", None)
