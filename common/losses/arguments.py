"""What an objective was called with, held against its signature: one sentence that names the argument."""

import inspect
import typing
from functools import cache
from typing import Any

from torch import Tensor, nn

__all__ = ["check_arguments"]

Array = tuple[tuple[str, ...], tuple[str, ...], bool]  # axes, dtypes, whether it may be None
_KINDS = {"float": "floating-point", "int": "integer", "uint": "integer", "bool": "bool"}


def check_arguments(objective: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises `TypeError` for what is no tensor of the annotated kind, `ValueError` for a shape that does not fit.

    Only arguments annotated as one array (perhaps optional) are looked at; equal axis names mean equal lengths.

    >>> import torch
    >>> from counterpoint.common.losses import NTXent
    >>> NTXent()(torch.randn(4, 3), torch.randn(2, 3))
    Traceback (most recent call last):
    ValueError: NTXent: zb must be [batch, dim] with batch = 4 as in za, got shape (2, 3)
    """
    signature, arrays = _arrays(type(objective))
    try:
        given = signature.bind(objective, *args, **kwargs).arguments
    except TypeError:
        return  # Python says it better
    lengths: dict[str, tuple[int, str]] = {}
    for name, (dims, kinds, optional) in arrays.items():
        value = given.get(name)
        if name not in given or (value is None and optional):
            continue
        where = f"{type(objective).__name__}: {name}"
        shape = f"[{', '.join(dims)}]"
        if not isinstance(value, Tensor):
            raise TypeError(f"{where} must be {_kind(kinds)} tensor {shape}, got {_found(value)}")
        if kinds and str(value.dtype).removeprefix("torch.") not in kinds:
            raise TypeError(f"{where} must be {_kind(kinds)} tensor {shape}, got {value.dtype}")
        if value.dim() != len(dims):
            raise ValueError(f"{where} must be {shape}, got shape {tuple(value.shape)}")
        for dim, length in zip(dims, value.shape):
            known = lengths.setdefault(dim, (length, name))
            if known[0] != length:
                raise ValueError(
                    f"{where} must be {shape} with {dim} = {known[0]} as in {known[1]}, got shape {tuple(value.shape)}"
                )


def _kind(kinds: tuple[str, ...]) -> str:
    named = {_KINDS.get(kind.rstrip("0123456789"), "") for kind in kinds} - {""}
    kind = named.pop() if len(named) == 1 else ""
    return f"{'an' if kind[:1] == 'i' else 'a'} {kind}".strip()


def _found(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")


@cache
def _arrays(kind: type[nn.Module]) -> tuple[inspect.Signature, dict[str, Array]]:
    """The signature of `forward`, and for each array argument its axes, dtypes, and whether it may be None."""
    function = inspect.unwrap(kind.forward)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        options = typing.get_args(parameter.annotation) or (parameter.annotation,)
        arrays = [option for option in options if hasattr(option, "dim_str")]
        plain = len(arrays) == 1 and all(option is type(None) for option in options if option not in arrays)
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if not plain or variable:
            continue
        dims = tuple(arrays[0].dim_str.split())
        dtypes = arrays[0].dtypes
        kinds = tuple(dtypes) if isinstance(dtypes, list | tuple) and all(isinstance(d, str) for d in dtypes) else ()
        if all(dim.isidentifier() for dim in dims):
            found[name] = (dims, kinds, type(None) in options)
    return inspect.signature(function), found
