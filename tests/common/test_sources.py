"""What a figure rests on: followed by name through modules, blind to comments, alert to every change of the code."""

import importlib
import sys

import pytest

from counterpoint.common import sources

FILES = {
    "__init__.py": "",
    "checks.py": '''
"""Module text."""
from methods_here.system import Trained as System, unused
from methods_here import tools
from counterpoint.common.trainers import fit

LIMIT = 3

def check(arm, seed):
    """What it measures."""
    from methods_here.late import late
    return fit(System(LIMIT)) + tools.scale(seed) + late()  # a remark

def other(arm, seed):
    return unused()
''',
    "system.py": '''
from methods_here.base import Base

def unused():
    return 0

class Trained(Base):
    """A system."""

    @classmethod
    def read(cls, config):
        return "files"

    def losses(self):
        return helper(self)

Trained.weight = 2

def helper(x):
    return x
''',
    "base.py": "class Base:\n    def step(self):\n        return 1\n",
    "tools.py": "def scale(x):\n    return 2 * x\n",
    "late.py": "def late():\n    return 5\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "methods_here"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    sources._module.cache_clear()
    yield folder
    sources._module.cache_clear()
    sys.modules.pop("methods_here", None)
    importlib.invalidate_caches()


def hashed(name="check"):
    sources._module.cache_clear()
    return sources.code_hash(f"methods_here.checks:{name}")


def test_definitions_are_followed_by_name(package):
    found = {place.removeprefix("methods_here.") for place in sources.rests_on("methods_here.checks:check")}
    assert found == {
        "checks:check", "checks:LIMIT", "system:Trained", "system:helper", "base:Base", "tools:scale", "late:late"
    }  # fmt: skip
    assert "methods_here" not in sys.modules, "read, not imported"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base.py", "return 1", "return 2"),
        ("tools.py", "2 * x", "3 * x"),
        ("late.py", "5", "6"),
        ("checks.py", "LIMIT = 3", "LIMIT = 4"),
        ("system.py", "Trained.weight = 2", "Trained.weight = 3"),
        ("system.py", "return helper(self)", "return helper(None)"),
    ],
)
def test_a_change_of_what_it_reaches_shows(package, file, old, new):
    before = hashed()
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert hashed() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("checks.py", "# a remark", "# another"),
        ("checks.py", "What it measures.", "What it really measures."),
        ("checks.py", "return unused()", "return unused() + 1"),
        ("system.py", "def unused():\n    return 0", "def unused():\n    return 9"),
        ("system.py", "A system.", "The system."),
        ("system.py", 'return "files"', 'return "other files"'),
        ("base.py", "class Base:\n", "class Base:\n\n"),
    ],
)
def test_words_layout_and_what_it_does_not_reach_do_not_show(package, file, old, new):
    before = hashed()
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert hashed() == before


def test_a_star_takes_the_whole_module(package):
    before = hashed("*")
    text = (package / "checks.py").read_text()
    (package / "checks.py").write_text(text.replace("return unused()", "return unused() + 1"))
    assert hashed("*") != before


def test_what_is_not_there_is_named(package):
    with pytest.raises(LookupError, match="there is no module methods_here.gone"):
        sources.code_hash("methods_here.gone:x")
    with pytest.raises(LookupError, match="defines no gone"):
        sources.code_hash("methods_here.checks:gone")


def test_of_the_core_the_methods_count_and_the_engine_does_not():
    found = sources.rests_on("counterpoint.timeseries.checks:dbpm_flags")
    modules = {place.partition(":")[0] for place in found}
    assert {"counterpoint.timeseries.dbpm", "counterpoint.common.losses.ntxent"} <= modules
    assert "counterpoint.common.trainers.bad_pairs" in modules
    assert not any(m.startswith(("counterpoint.common.kernels", "counterpoint.common.metrics")) for m in modules)
