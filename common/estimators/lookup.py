"""From what a user writes (`"ts2vec"`, `train__max_steps=20`) to the system, its vertical and its settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import nearest, no_such
from counterpoint.common.trainers.config_files import option_names, override, preset_values
from counterpoint.common.vertical import Given, Vertical


@dataclass(frozen=True)
class KnownSystem:
    """A system that can be trained: its name, its vertical, its config class, and where its class is."""

    name: str
    vertical: Vertical
    config_class: type
    target: str | type

    @property
    def system_class(self) -> Any:
        """The class itself; imports torch."""
        return resolve(self.target) if isinstance(self.target, str) else self.target

    @property
    def samples_from(self) -> Callable[..., Given]:
        """The vertical's hook for data in memory."""
        if self.vertical.samples_from is None:
            raise InputError(
                f"{self.name} takes no data in memory: the vertical {self.vertical.name} trains from files "
                f"(counterpoint {self.vertical.name} pretrain {self.name})"
            )
        return resolve(self.vertical.samples_from)


def find_system(system: Any) -> KnownSystem:
    """The system of a name (`"ts2vec"`), or a class derived from one of a vertical's.

    >>> find_system("ts2vec").vertical.name
    'timeseries'
    """
    if isinstance(system, type):
        return _of_class(system)
    if not isinstance(system, str):
        raise InputError(f"system is {system!r}; give a system's name, or its class")
    verticals = [load() for load in find_verticals().values()]
    known = [(vertical, entry) for vertical in verticals for entry in vertical.systems]
    found = [(vertical, entry) for vertical, entry in known if entry.name == system]
    if not found:
        raise no_such("system", str(system), [entry.name for _, entry in known], "counterpoint --help")
    if len(found) > 1:
        where = " and ".join(vertical.name for vertical, _ in found)
        raise InputError(f"{where} both have a system {system}; give its class, system=...")
    ((vertical, entry),) = found
    return KnownSystem(entry.name, vertical, resolve(entry.config), entry.system)


def _of_class(cls: type) -> KnownSystem:
    from counterpoint.common.trainers.run_folder import check_importable
    from counterpoint.common.trainers.system import ContrastiveSystem

    if not issubclass(cls, ContrastiveSystem):
        raise InputError(f"system: {cls.__name__} is no ContrastiveSystem; give a system's name, or such a class")
    check_importable(cls)
    parents = [parent.__module__ for parent in cls.__mro__]
    for load in find_verticals().values():
        vertical = load()
        if any(f"{module}.".startswith(f"{vertical.package}.") for module in parents):
            return KnownSystem(cls.__name__, vertical, cls.Config, cls)
    raise InputError(
        f"{cls.__name__} derives from no system of an installed vertical, so nothing says how X becomes its samples"
    )


def settings_of_system(found: KnownSystem, preset: str, options: Mapping[str, Any]) -> Any:
    """The system's configuration: a preset, with options named as scikit-learn nests them.

    >>> settings_of_system(find_system("ts2vec"), "small", {"train__max_steps": np.int64(3)}).train.max_steps
    3
    >>> settings_of_system(find_system("ts2vec"), "small", {"max_steps": 3})
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.InputError: 'max_steps' is not an option of ts2vec; did you mean 'train__max_steps'?
    """
    check_options(found, options)
    config = override(found.config_class(), preset_values(preset, found.config_class, found.target))
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    if "train__max_epochs" in values and "train__max_steps" not in values:
        values["train__max_steps"] = None  # a number of steps that nobody gave would win over the epochs
    try:
        return override(config, {name.replace("__", "."): value for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"an option of {found.name} cannot be used: {error}") from None


def check_options(found: KnownSystem, options: Mapping[str, Any]) -> None:
    """Raise `InputError` for an option that the system's configuration lacks, with the nearest that it has."""
    known = list(option_names(found.config_class))
    for name in options:
        dotted = name.replace("__", ".")
        if dotted in known:
            continue
        near = nearest(dotted, known)
        groups = ", ".join(option for option in known if "." not in option)
        hint = f"did you mean '{near.replace('.', '__')}'?" if near else f"there are: {groups}"
        raise InputError(f"'{name}' is not an option of {found.name}; {hint}")


@contextlib.contextmanager
def in_python(found: KnownSystem) -> Iterator[None]:
    """Sentences about settings name them as `Encoder` takes them: `train__max_steps`, not `train.max_steps`."""
    try:
        yield
    except InputError as error:
        names = {name: name.replace(".", "__") for name in option_names(found.config_class) if "." in name}
        names["train.out"] = "run_folder"
        listed = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        error.args = (re.sub(rf"(?<![\w./-])(?:--)?({listed})(?!\w)", lambda match: names[match[1]], str(error)),)
        raise
