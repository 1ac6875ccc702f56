"""Sentences for names that do not exist: what was given, the nearest name that does, or all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from counterpoint.common.errors import InputError


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing comes close. Dotted names also match by their last part.

    >>> nearest("--train.max_epoch", ["--train.max_epochs", "--train.seed"])
    '--train.max_epochs'
    >>> nearest("--max_epochs", ["--train.max_epochs", "--train.seed"])
    '--train.max_epochs'
    >>> nearest("xyz", ["evaluate", "embed"]) is None
    True
    """
    names = list(known)
    leaves: dict[str, str] = {}
    for known_name in names:
        leaves.setdefault(_leaf(known_name), known_name)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    close = difflib.get_close_matches(_leaf(name), leaves, n=1, cutoff=0.75)
    return leaves[close[0]] if close else None


def no_such(kind: str, name: str, known: Iterable[str], help_command: str = "") -> InputError:
    """An `InputError` that says `kind` `name` does not exist and what to do.

    >>> no_such("verb", "pretrian", ["pretrain", "embed"])
    InputError("unknown verb 'pretrian'; did you mean 'pretrain'?")
    >>> no_such("verb", "x", ["pretrain", "embed"])
    InputError("unknown verb 'x'; there are: pretrain, embed")
    >>> no_such("item", "x", map(str, range(1682)))
    InputError("unknown item 'x'; none of the 1,682 there are is like it")
    """
    names = list(known)
    near = nearest(name, names)
    if near is not None:
        advice = f"did you mean '{near}'?"
    elif 0 < len(names) <= 12:
        advice = f"there are: {', '.join(names)}"
    else:
        none = f"none of the {len(names):,} there are is like it" if names else "there is none"
        advice = f"see {help_command}" if help_command else none
    return InputError(f"unknown {kind} '{name}'; {advice}")


def _leaf(name: str) -> str:
    return name.lstrip("-").rpartition(".")[2].replace("-", "_")
