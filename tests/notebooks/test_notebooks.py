"""The tutorials run from top to bottom; their stored outputs are small, free of errors and of any machine's paths."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {
    "2-recordings-to-report": "wfdb",
    "3-molecules-to-retrieval": "rdkit",
    "7-dicom-to-archive": "pydicom",
    "8-rasters-to-maps": "rasterio",
    "10-from-laptop-to-cluster": "wfdb",
}
SLOW = tuple(NEEDS)


def text_of(notebook):
    return "\n".join(
        "".join(output.get("text", ""))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    )


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stored_small_and_without_errors_or_paths_of_a_machine(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert path.stat().st_size < 60_000
    assert all(cell["execution_count"] for cell in cells)
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert text_of(notebook).strip()
    for word in ("/home/", "/root/", "/work/"):
        assert word not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in NOTEBOOKS]
)
def test_it_runs(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    notebook = nbformat.read(path, as_version=4)
    stored = [cell["source"] for cell in notebook.cells]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    client = nbclient.NotebookClient(
        notebook, timeout=1100, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises on the first cell that fails
    assert [cell["source"] for cell in notebook.cells] == stored
