"""What code a measured figure rests on: the definitions that a function reaches by name, read without importing them.

A figure is older than its code when one of these has changed since. Which ones count: everything that it reaches in the
verticals or in its own package (systems, views, readers, generators), and in the core what is part of a method:
objectives (`common.losses`), network parts (`common.models`) and the plug-ins of `METHODS`. The engine, the trainer and
the metrics are held to their results by tests of their own, and do not make every figure old; nor does the reading of
files (a system's `read`). Comments, docstrings and layout do not count. Of a target in the core its own room counts.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

CORE = "counterpoint.common"
METHODS = tuple(
    f"{CORE}.{name}"
    for name in ("losses", "models", "trainers.bad_pairs", "trainers.harmonize", "trainers.hard_negatives",
                 "trainers.multistage_learning")
)  # fmt: skip


@dataclass
class _Module:
    """Top-level definitions of a file by name, and what its names import."""

    package: str
    defined: dict[str, list[ast.AST]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)


def code_hash(target: str) -> str:
    """Twelve hexadecimal digits that change when the code under `"module:name"` does; `"module:*"` is the whole module,
    with what it imports.

    Raises `LookupError` where the module or the name does not exist.

    >>> code_hash("counterpoint.common.sources:code_hash") == code_hash("counterpoint.common.sources:code_hash")
    True
    """
    digest = hashlib.sha256()
    for place, text in sorted(rests_on(target).items()):
        digest.update(f"{place}\n{text}\n".encode())
    return digest.hexdigest()[:12]


def known_hash(target: str) -> str:
    """`code_hash`, or nothing where the code cannot be found by its name (a script, a function in a notebook).

    >>> known_hash("no_such_module:f")
    ''
    """
    try:
        return code_hash(target) if target else ""
    except LookupError:
        return ""


def rests_on(target: str) -> dict[str, str]:
    """The definitions under `"module:name"` as `module:name` -> its syntax tree in words, itself among them."""
    name, _, attribute = target.partition(":")
    module = _module(name)
    if module is None:
        raise LookupError(f"{target}: there is no module {name}")
    names = [*module.defined, *module.imported] if attribute == "*" else [attribute]
    if missing := [n for n in names if n not in module.defined and n not in module.imported]:
        raise LookupError(f"{target}: the module defines no {missing[0]}")
    home = _home(name)
    found: dict[str, str] = {}
    waiting = [(name, n) for n in names]
    while waiting:
        at, what = waiting.pop()
        if f"{at}:{what}" in found or not _counts(at, home):
            continue
        here = _module(at)
        if here is None or what not in here.defined:
            waiting += _imported(here, what)
            continue
        nodes = here.defined[what]
        found[f"{at}:{what}"] = "\n".join(_words(node) for node in nodes)
        for node in nodes:
            waiting += _reached(node, here, at)
    return found


def _counts(module: str, home: str) -> bool:
    if module.startswith("counterpoint.") and not module.startswith(f"{CORE}."):
        return True
    return any(module == root or module.startswith(f"{root}.") for root in (home, *METHODS))


def _home(module: str) -> str:
    """The package whose code counts as a whole: a room of the suite's core, or another top-level package."""
    parts = module.split(".")
    return ".".join(parts[: 3 if module.startswith(f"{CORE}.") else 2 if parts[0] == "counterpoint" else 1])


def _reached(node: ast.AST, here: _Module, at: str) -> list[tuple[str, str]]:
    """Names that a definition uses and that are defined or imported at the top of its module, or inside of it."""
    local = dict(here.imported)
    if isinstance(node, ast.ClassDef):
        node = ast.ClassDef(**{**dict(ast.iter_fields(node)), "body": _without_reading(node)})
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Import, ast.ImportFrom)):
            local |= _imports(inner, here.package)
    found = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            if inner.id in here.defined:
                found.append((at, inner.id))
            elif inner.id in local and local[inner.id][1] is not None:
                found.append(local[inner.id])
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id in local:
            module, name = local[inner.value.id]
            found.append((module if name is None else f"{module}.{name}", inner.attr))
    return found


def _imported(module: _Module | None, name: str) -> list[tuple[str, str]]:
    """Where a name that a module passes on comes from."""
    if module is None or name not in module.imported:
        return []
    source, attribute = module.imported[name]
    return [] if attribute is None else [(source, attribute)]


@cache
def _module(name: str) -> _Module | None:
    file = _file(name)
    if file is None:
        return None
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = _Module(package)
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.defined.setdefault(node.name, []).append(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name):  # of `Class.attribute = ...` too
                        found.defined.setdefault(inner.id, []).append(node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.imported |= _imports(node, package)
    return found


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, tuple[str, str | None]]:
    if isinstance(node, ast.Import):
        return {a.asname: (a.name, None) for a in node.names if a.asname}
    base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*base, *([node.module] if node.module else [])])
    return {a.asname or a.name: (source, a.name) for a in node.names}


def _file(name: str) -> Path | None:
    """The file of a module; its top-level package alone is looked up, nothing is executed below it."""
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a script
        return None
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if spec.origin and not rest else None
    place = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    return next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)


def _words(node: ast.AST) -> str:
    """A definition as Python writes it, without comments, docstrings and the reading of files."""
    node = ast.parse(ast.unparse(node))
    for inner in ast.walk(node):
        if isinstance(inner, ast.ClassDef):
            inner.body = _without_reading(inner)
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner.body = inner.body[ast.get_docstring(inner) is not None :] or [ast.Pass()]
    return ast.unparse(node).replace("'", '"')  # versions of Python quote differently within f-strings


def _without_reading(node: ast.ClassDef) -> list[ast.stmt]:
    """A system's `read` brings files in; checks hand data over, and readers have tests of their own."""
    return [n for n in node.body if not (isinstance(n, ast.FunctionDef) and n.name == "read")] or [ast.Pass()]
