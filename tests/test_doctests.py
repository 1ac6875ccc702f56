"""Every docstring example runs. Walks `counterpoint.*` by package name: the repository root is the package."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import counterpoint

OUTSIDE = {"tests", "benchmarks", "notebooks", "docs", "build", "dist", "runs"}
# Importable only where Triton is; their examples are the backends' tests.
NEEDS = {"counterpoint.common.kernels.triton": "triton"}


def module_names() -> list[str]:
    """Dotted names of all modules, found on disk without importing them."""

    def walk(paths: list[str], prefix: str) -> list[str]:
        names = []
        for info in pkgutil.iter_modules(paths, prefix):
            if info.name.split(".")[1] in OUTSIDE:
                continue
            names.append(info.name)
            if info.ispkg:
                folder = info.name.rpartition(".")[2]
                names += walk([f"{path}/{folder}" for path in paths], f"{info.name}.")
        return names

    return ["counterpoint", *walk(list(counterpoint.__path__), "counterpoint.")]


@pytest.mark.parametrize("name", module_names())
def test_examples(name):
    for prefix, library in NEEDS.items():
        if name.startswith(prefix) and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=flags, verbose=False, report=True)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail (see the output above)"


def test_the_walk_finds_modules():
    assert {"counterpoint.common.cli.main", "counterpoint.common.errors"} <= set(module_names())
