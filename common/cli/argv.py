"""What a person types, put as jsonargparse reads it: switches, several values of one option, positionals anywhere."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from counterpoint.common.errors import InputError

_EXAMPLES = {int: ("0", "1", "2"), float: ("0.5", "1.0", "2.0")}


@dataclass(frozen=True)
class Several:
    """An option that takes several plain values: a tuple or list of numbers or words.

    Attributes:
        element: type of one value.
        count: how many there must be; None for any number.
    """

    element: Any
    count: int | None

    @classmethod
    def of(cls, hint: Any) -> Several | None:
        """What a type hint asks for, or None when it is no sequence of plain values.

        >>> Several.of(tuple[int, ...]), Several.of(tuple[float, float] | None).count, Several.of(str)
        (Several(element=<class 'int'>, count=None), 2, None)
        """
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            found = [cls.of(part) for part in typing.get_args(hint) if part is not type(None)]
            return found[0] if len(found) == 1 else None
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin not in (tuple, list) or not inner or not (inner[0] in (int, float, str) or _words(inner[0])):
            return None
        if origin is list or inner[-1] is Ellipsis:
            return cls(inner[0], None)
        return cls(inner[0], len(inner)) if len(set(inner)) == 1 else None

    def as_json(self, words: Sequence[str]) -> str:
        """The values as one JSON list; words that already are one stay as they are.

        >>> Several(int, None).as_json(["0,1", "2"]), Several(str, None).as_json(["knn,", "probe"])
        ('[0,1,2]', '["knn","probe"]')
        """
        if len(words) == 1 and (words[0].startswith("[") or words[0] in ("null", "none", "None")):
            return words[0]
        text = ",".join(words)
        if text.startswith("(") and text.endswith(")"):
            text = text[1:-1]
        values = [value.strip() for value in re.split(r",(?![^\[\]]*\])", text) if value.strip()]  # [1,2] stays whole
        quoted = self.element is str or _words(self.element)
        return f"[{','.join(json.dumps(value) if quoted else value for value in values)}]"

    def sentence(self, option: str, typed: str) -> str:
        """What to type instead.

        >>> Several(float, 2).sentence("--betas", "0.9")
        '--betas: expected 2 values (float) as in --betas 0.5,1.0, got 0.9'
        """
        choices = typing.get_args(self.element)
        kind = f"of {', '.join(map(str, choices))}" if choices else f"({self.element.__name__})"
        examples = tuple(map(str, choices)) or _EXAMPLES.get(self.element, ("a", "b", "c"))
        example = ",".join((examples * (self.count or 1))[: self.count or 3])
        many = "values" if self.count is None else f"{self.count} values"
        return f"{option}: expected {many} {kind} as in {option} {example}, got {typed}"


def _words(element: Any) -> bool:
    return typing.get_origin(element) is typing.Literal


def arrange(parser: Any, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(words for the parser, what was typed for each option that takes several values).

    - `--strict` alone means `--strict true` for a yes-or-no parameter.
    - `--seeds 0,1,2`, `--seeds 0 1 2` and `--seeds [0,1,2]` say the same. An option that takes any number of values
      leaves the last ones to positionals that would otherwise be missing (`--protocols knn RUN`).
    - Positionals may stand before, between and after options.

    Raises:
        InputError: an option with several values is given twice, where one of the two would be lost.
    """
    actions = {name: action for action in parser._actions for name in action.option_strings}
    needed = sum(not a.option_strings and a.nargs is None for a in parser._actions)
    positionals: list[str] = []
    chunks: list[list[str]] = []  # one option with its words each
    several: dict[str, tuple[int, Several]] = {}
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if word == "--" or not _is_option(word, actions):
            positionals += argv[position:] if word == "--" else [word]
            if word == "--":
                break
            continue
        name, given, value = word.partition("=")
        action = actions.get(name)
        plan = None if action is None else Several.of(getattr(action, "_typehint", None))
        if plan is None:
            chunk = [word]
            following = argv[position] if position < len(argv) else ""
            if action is None:
                # Unknown: the parser says so; a value after it belongs to it, not to the positionals.
                takes = not given and position < len(argv) and not following.startswith("-")
            elif getattr(action, "_typehint", None) is bool:
                takes = not given and following.lower() in ("true", "false", "yes", "no")
                chunk = [word] if given or takes else [f"{word}=true"]
            else:
                takes = not given and action.nargs != 0 and position < len(argv) and not _is_option(following, actions)
            if takes:
                chunk.append(following)
                position += 1
            chunks.append(chunk)
            continue
        values = [value] if given else []
        while not given and position < len(argv) and not _is_option(argv[position], actions):
            if values and (
                values[0].startswith("[") or (plan.count and len(",".join(values).split(",")) >= plan.count)
            ):
                break
            values.append(argv[position])
            position += 1
        if name in several:
            raise InputError(f"{name} is given twice; give all its values at once, as in {name} a,b")
        several[name] = (len(chunks), plan)
        chunks.append([name, *values])
    for index, plan in reversed(list(several.values())):
        chunk = chunks[index]
        while plan.count is None and len(positionals) < needed and len(chunk) > 2:
            positionals.append(chunk.pop())
    typed = {}
    for name, (index, plan) in several.items():
        values = chunks[index][1:]
        if values:
            typed[name] = " ".join(values)
            chunks[index] = [f"{name}={plan.as_json(values)}"]
    dashed = any(word.startswith("-") for word in positionals)
    words = [word for chunk in chunks for word in chunk]
    return ([*words, "--", *positionals] if dashed else [*positionals, *words]), typed


def _is_option(word: str, actions: Mapping[str, Any]) -> bool:
    """Whether a word names an option; negative numbers do not."""
    if word.partition("=")[0] in actions:
        return True
    try:
        float(word.split(",")[0])
    except ValueError:
        return word.startswith("-") and word != "-"
    return False
