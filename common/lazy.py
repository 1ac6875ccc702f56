"""Lazy package exports, so that `import counterpoint` and `--help` do not pay for torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def lazy_exports(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return module-level `__getattr__` and `__dir__` for `package` that import each name on first use.

    `exports` maps a public name to the module that defines it.

    >>> getattr_, dir_ = lazy_exports("collections", {"OrderedDict": "collections"})
    >>> getattr_("OrderedDict").__name__
    'OrderedDict'
    >>> dir_()
    ['OrderedDict']
    """

    def __getattr__(name: str) -> object:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(exports[name]), name)

    def __dir__() -> list[str]:
        return sorted(exports)

    return __getattr__, __dir__


def resolve(target: str) -> object:
    """Import the object named by `"module:attribute"`.

    >>> resolve("math:pi")
    3.141592653589793
    """
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
