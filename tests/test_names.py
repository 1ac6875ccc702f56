"""No two things of one name: each public name is defined in one module, but for hooks that have several owners."""

import ast
import subprocess
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APART = ("tests/", "benchmarks/", "notebooks/")

#: Names that several modules define, because each owner answers the same call: why, which names, whose.
HOOKS = (
    (
        "a verb on the command line, and the same verb as a function of Python",
        ("compare", "embed", "evaluate", "export", "finetune", "flow", "recommend", "report", "reproduce", "search"),
        ("common/cli/*", "common/runs/*", "common/trainers/*", "*/commands.py", "*/serving.py"),
    ),
    (
        "a verb that each vertical brings, or brings its own form of",
        ("check", "demo", "preview", "simulate", "split"),
        ("*/commands.py", "common/cli/*"),
    ),
    ("the demo of a vertical", ("run_demo",), ("*/demo.py",)),
    ("what a vertical checks of a manifest's row", ("check_row",), ("*/importers.py", "*/checking.py", "*/reading.py")),
    (
        "how a vertical's modalities are read and shown (`Modality`)",
        ("caption", "parse", "picture", "preview_page", "query"),
        ("*/gallery.py", "*/queries.py", "*/preview.py"),
    ),
    ("the vertical's own protocols (`Vertical.protocols`)", ("protocols",), ("*",)),
    ("samples of what a scikit-learn user hands in (`Vertical.given`)", ("samples_from",), ("*/given.py",)),
    (
        "what every backend of the contrast engine answers",
        ("backward", "forward", "pair_sums", "statistics"),
        ("common/kernels/*",),
    ),
)


def defined(tree):
    """Public functions and classes of a module, and what its `__all__` names of its own."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
    assigned = [n for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign)]
    targets = {t.id: n for n in assigned for t in getattr(n, "targets", [getattr(n, "target", None)]) if name(t)}
    exported = targets.get("__all__")
    listed = exported.value.elts if exported is not None and isinstance(exported.value, ast.List) else ()
    said = {element.value for element in listed if isinstance(element, ast.Constant)}
    yield from said & (targets.keys() - {"__all__"})


def name(node):
    return isinstance(node, ast.Name)


def owners():
    """name -> the modules that define it."""
    found = defaultdict(set)
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = listed.split() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py")]
    for file in files:
        if not file.startswith(APART) and (ROOT / file).is_file():
            for each in defined(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
                found[each].add(file)
    return found


def test_no_two_things_have_one_name():
    hooks = {name: whose for _, names, whose in HOOKS for name in names}
    twice = {
        name: sorted(files)
        for name, files in owners().items()
        if len(files) > 1 and not all(any(fnmatch(f, p) for p in hooks.get(name, ())) for f in files)
    }
    assert not twice, f"give all but one of each another name: {twice}"


def test_every_hook_has_several_owners():
    """What one module alone defines needs no exception."""
    found = owners()
    assert not [name for _, names, _ in HOOKS for name in names if len(found[name]) < 2]
