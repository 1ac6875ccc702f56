"""Nested frozen dataclasses <-> plain dictionaries <-> YAML, with errors that name the field and the near miss."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such

T = TypeVar("T")


def to_dict(config: Any) -> Any:
    """Plain data (dict, list, str, numbers) of a nested dataclass.

    >>> from counterpoint.common.trainers.configs import OptimConfig
    >>> to_dict(OptimConfig(lr=0.5))["betas"]
    [0.9, 0.999]
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(v) for v in config]
    if isinstance(config, Path):
        return str(config)
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise TypeError(f"a configuration holds numbers, text, lists, dicts and dataclasses, not {type(config).__name__}")


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from plain data; unknown names and wrong types raise `InputError` with the path.

    >>> from counterpoint.common.trainers.configs import OptimConfig
    >>> from_dict(OptimConfig, {"lr": 1, "schedule": {"kind": "wsd"}}).schedule.kind
    'wsd'
    >>> from_dict(OptimConfig, {"weight_decai": 0.1})
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.InputError: weight_decai is not an option; did you mean weight_decay?
    """
    return _build(cls, data, where)


def override(config: T, changes: Mapping[str, Any]) -> T:
    """A copy with some fields replaced; names are dotted (`optim.lr`) or nested dictionaries. A field that holds a
    dictionary is replaced as a whole, or changed in one entry by a dotted name (`train.plugins.harmonize.shared`).

    >>> from counterpoint.common.trainers.configs import OptimConfig
    >>> override(OptimConfig(), {"schedule.kind": "wsd", "lr": 0.1}).schedule.kind
    'wsd'
    """
    data = to_dict(config)
    for name, value in changes.items():
        _merge(data, _nested(name, value), type(config), "")
    return from_dict(type(config), data)


def option_names(cls: Any, prefix: str = "") -> Iterator[str]:
    """The dotted name of every option, those that hold others included.

    >>> from counterpoint.common.trainers.configs import OptimConfig
    >>> [name for name in option_names(OptimConfig) if "schedule" in name][:2]
    ['schedule', 'schedule.kind']
    """
    for name, hint in (_hints(cls) or {}).items():
        yield f"{prefix}{name}"
        inner = _dataclass_of(hint)
        if inner is not None:
            yield from option_names(inner, f"{prefix}{name}.")


def preset_values(name: str, config_class: Any, system: str | type) -> Mapping[str, Any]:
    """The overrides of a named preset of a system (its class, or where it is); `full` is the dataclass's own defaults,
    the paper's scale."""
    presets = getattr(config_class, "presets", None)
    if presets is None:
        presets = (resolve(system) if isinstance(system, str) else system).presets
    if name == "full" and "full" not in presets:
        return {}
    if name not in presets:
        raise no_such("preset", name, ["full", *presets])
    return presets[name]


class _Within(dict):
    """What a dotted name leads through: it changes one entry of a dictionary, where a dictionary replaces it."""


def save_yaml(config: Any, path: str | Path) -> None:
    """Write a configuration (a dataclass or plain data) as YAML."""
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_yaml(path: str | Path, cls: type[T] | None = None) -> Any:
    """Read YAML into `cls`, or as plain data."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date that is none
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds {type(data).__name__}; a configuration is a mapping of names to values")
    return data if cls is None else from_dict(cls, data)


def _nested(name: str, value: Any) -> dict[str, Any]:
    head, _, rest = name.partition(".")
    return _Within({head: _nested(rest, value) if rest else value})


def _merge(data: dict, changes: Mapping[str, Any], cls: Any, where: str) -> None:
    hints = _hints(cls)
    if hasattr(cls, "upgraded"):
        changes = (_Within if isinstance(changes, _Within) else dict)(cls.upgraded(changes))
    for name, value in changes.items():
        path = f"{where}.{name}" if where else name
        if hints is not None and name not in hints:
            raise InputError(_unknown(path, name, hints))
        inner = _dataclass_of(hints[name]) if hints is not None else None
        if inner is not None and isinstance(value, Mapping):
            if not isinstance(data.get(name), dict):
                data[name] = {}
            _merge(data[name], value, inner, path)
        elif isinstance(value, _Within) and isinstance(data.get(name) or {}, dict):
            data[name] = data.get(name) or {}
            _merge(data[name], value, None, path)
        else:
            data[name] = to_dict(value)


def _hints(cls: Any) -> dict[str, Any] | None:
    if not dataclasses.is_dataclass(cls):
        return None
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def _dataclass_of(hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((o for o in options if dataclasses.is_dataclass(o)), None)


def _unknown(path: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    parent = path[: len(path) - len(name)]
    hint = f"did you mean {parent}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    return f"{path} is not an option; {hint}"


def _build(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise InputError(f"{where or cls.__name__}: expected a mapping of options, got {data!r}")
    hints = _hints(cls) or {}
    data, values = cls.upgraded(data) if hasattr(cls, "upgraded") else data, {}
    for name, value in data.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in hints:
            raise InputError(_unknown(path, str(name), hints))
        values[name] = _convert(hints[name], value, path)
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.init
        and f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where + '.' if where else ''}{missing[0]} must be given")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        errors = []
        # An exact type first, so that "3" stays text where both text and numbers are allowed.
        for option in sorted(args, key=lambda o: o is not type(value)):
            try:
                return _convert(option, value, where)
            except InputError as error:
                errors.append(str(error))
        raise InputError(next((e for e in errors if "is not an option" in e), _expected(where, hint, value)))
    if origin is Literal:
        if value in args:
            return value
        raise InputError(f"{where}: {value!r} is not one of {', '.join(map(repr, args))}")
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _build(hint, value, where)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise InputError(_expected(where, hint, value))
        if origin is list or (len(args) == 2 and args[1] is Ellipsis):
            return origin(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(args) != len(value):
            raise InputError(f"{where}: expected {len(args)} values, got {len(value)}")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value)))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise InputError(_expected(where, hint, value))
        return {k: _convert(args[1] if args else Any, v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            raise InputError(_expected(where, hint, value)) from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is type(None) and value is None:
        return None
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise InputError(_expected(where, hint, value))


def _expected(where: str, hint: Any, value: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
    return f"{where}: expected {name}, got {value!r}"
