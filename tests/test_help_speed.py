"""`--help` of every level answers in under a second of CPU time, because nothing heavy is imported for it."""

import os
import resource
import subprocess
import sys

import pytest

from counterpoint.common.cli.verbs import UMBRELLA, verbs_of
from counterpoint.common.discover import find_verticals

LIMIT = 1.0
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


def cpu_seconds(argv: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", CODE.format(heavy=HEAVY), *argv, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("argv", levels(), ids=" ".join)
def test_help_is_quick(argv):
    times: list[float] = []
    # The least of a few runs: other work on the machine only ever adds.
    while len(times) < 4 and (not times or min(times) >= LIMIT):
        times.append(cpu_seconds(argv))
    assert min(times) < LIMIT, f"counterpoint {' '.join(argv)} --help took {times} s of CPU time"
