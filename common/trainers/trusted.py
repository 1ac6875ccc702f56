"""Classes that a file names: looked at before their module is imported, because importing a module runs it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from counterpoint.common.data.places import ALLOW, allowed_by_user
from counterpoint.common.discover import GROUP as VERTICALS
from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.plugins import GROUP as PLUGINS


def trusted_packages() -> tuple[str, ...]:
    """`counterpoint` and the packages of the installed verticals and plug-ins.

    >>> "counterpoint" in trusted_packages()
    True
    """
    points = (point for group in (VERTICALS, PLUGINS) for point in entry_points(group=group))
    found = {point.module.split(".")[0] for point in points}
    return tuple(sorted({"counterpoint", *found}))


def trusted_system(target: Any, where: str, allow: Sequence[str] = ()) -> type:
    """The `ContrastiveSystem` named `"module:Class"` by a file; see `trusted_class`."""
    from counterpoint.common.trainers.system import ContrastiveSystem

    return trusted_class(target, ContrastiveSystem, where, allow)


def trusted_class(target: Any, base: type, where: str, allow: Sequence[str] = ()) -> type:
    """The class derived from `base` that a file names as `"module:Class"`.

    Its module is `counterpoint`'s, that of an installed vertical or plug-in (or the class is a system that one lists),
    one named in `allow` or in the environment variable COUNTERPOINT_ALLOW (or inside of a package named there), or one
    in which this program has already defined such a class. Nothing else is imported.

    Raises:
        InputError: `where` names another module, something that is no system, or nothing that can be imported.
    """
    module, _, name = target.partition(":") if isinstance(target, str) else ("", "", "")
    known = _subclasses(base)
    if (module, name) in known:
        return known[module, name]
    if not module or not name:
        raise InputError(f"{where}: {target!r} is not of the form module:Class")
    known_packages = (*trusted_packages(), *allow, *allowed_by_user(folders=False))
    inside = any(module == a or module.startswith(f"{a}.") for a in known_packages)
    if not inside and target not in _listed():
        raise InputError(
            f"{where}: names {target}, of a module that belongs to no installed vertical, so it is not imported; if "
            f"you trust it, set {ALLOW}={module} (in Python: give allow=({module!r},), or import it first)"
        )
    try:
        found = resolve(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{where}: {target} cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{where}: {target} is not a {base.__name__}")
    return found


def _listed() -> set[str]:
    """The systems that the installed verticals list, wherever they keep them."""
    return {entry.system for load in find_verticals().values() for entry in load().systems}


def _subclasses(base: type) -> dict[tuple[str, str], type]:
    found = {}
    for cls in base.__subclasses__():
        found |= {(cls.__module__, cls.__qualname__): cls} | _subclasses(cls)
    return found
