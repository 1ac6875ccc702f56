"""`--help` of every level answers at once, because nothing heavy is imported for it (modules are counted, not time)."""

import os
import subprocess
import sys

import pytest

from counterpoint.common.cli.verbs import UMBRELLA, verbs_of
from counterpoint.common.discover import find_verticals

LIMIT = 700  # modules; PyTorch alone brings more than a thousand
HEAVY = ("torch", "pandas", "sklearn", "scipy", "lightning", "matplotlib", "music21")
CODE = """
import sys
from counterpoint.common.cli.main import main
sys.argv[:] = ["counterpoint", *sys.argv[1:]]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
heavy = [name for name in {heavy!r} if name in sys.modules]
if len(sys.modules) > {limit}:
    heavy.append(f"{{len(sys.modules)}} modules")
sys.exit(f"imported {{heavy}}" if heavy else code)
"""


def levels() -> list[tuple[str, ...]]:
    """Every command that leads somewhere, and every leaf."""
    found: list[tuple[str, ...]] = [(), *[(name,) for name in UMBRELLA]]
    for name, load in find_verticals().items():
        vertical = load()
        found.append((name,))
        found += [(name, verb) for verb in verbs_of(vertical)]
        found += [(name, "pretrain", entry.name) for entry in vertical.systems]
        found += [(name, "data", "check"), (name, "data", "split"), (name, "data", "curate")]
        found += [(name, "data", "import", importer.name) for importer in vertical.importers]
        found += [(name, "data", action) for action in ("simulate", "preview") if getattr(vertical, action)]
    return found


@pytest.mark.parametrize("argv", levels(), ids=" ".join)
def test_help_imports_nothing_heavy(argv):
    command = [sys.executable, "-c", CODE.format(heavy=HEAVY, limit=LIMIT), *argv, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
