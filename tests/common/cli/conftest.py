"""A vertical in another package, found through its entry point alone."""

import sys
from pathlib import Path

import pytest

from counterpoint.common.cli.main import main


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Make the toy vertical known for one test, which runs in a folder of its own."""
    metadata = tmp_path / "site" / "toy_vertical-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-vertical\nVersion: 1.0\n")
    points = "[counterpoint.verticals]\ntoy = toy_vertical:vertical\n"
    points += "[counterpoint.plugins]\nfirst_half = toy_configs:half\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(sys, "argv", ["counterpoint"])
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("toy_vertical", None)  # the toy's other modules stay: their classes travel to worker processes


@pytest.fixture
def cli(capsys):
    def run(*argv):
        code = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run
