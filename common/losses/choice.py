"""An objective chosen by name: `HCL(beta=0.5)` in a configuration, in place of the one a system was published with.

What an objective can be given is read off its signature: two views, any number of views, or embeddings with labels,
besides what the batch knows (index, group, label). Where a method has parts of its own behind the encoders (heads,
predictors, clusters), these are made with it (`completed.py`). One that needs more (momentum encoders, a frozen
teacher) is refused with what it needs.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.losses.cards import ObjectiveEntry, objectives
from counterpoint.common.losses.completed import COMPLETED
from counterpoint.common.suggest import no_such

__all__ = ["Chosen", "chosen_objective", "form_of", "parse_choice"]

#: What a batch may know of its samples.
FACTS = ("index", "group", "label", "clusters")
# Their arguments look like views and labels, and are something else: heads, teachers, keys of a momentum encoder.
_OTHERWISE = ("AMCLMoCo", "CWCL", "MoCo", "MoCHi", "MixCo", "SwAV")

# What an objective must be told: in words, and an example.
_SAID = {
    "n_samples": ("the number of training samples", "1000"),
    "dim": ("the width of the embeddings", "64"),
    "dims": ("the widths of the views' embeddings", "(64, 64)"),
    "n_classes": ("the number of classes or clusters", "10"),
    "batch": ("train.batch_size, times the processes", "64"),
    "vectors": ("folders that `embed --split train` and `embed --split val` wrote", "('runs/a/embeddings-train',)"),
}


@dataclass(frozen=True)
class Form:
    """How an objective is called: `pair` (za, zb), `views` (one argument each), `labelled` (rows and labels), `single`
    (one set of embeddings), `tokens` (those of two views); and which facts it needs and takes."""

    kind: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]


def parse_choice(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a choice.

    >>> parse_choice("HCL(beta=0.5, temperature=.1)"), parse_choice("DCL")
    (('HCL', {'beta': 0.5, 'temperature': 0.1}), ('DCL', {}))
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            return node.func.id, {_option(k): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError):
        pass
    raise InputError(f"objective {text!r}: give a name with its options by name, as in 'HCL(beta=0.5)'")


def _option(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError("options are given by name")
    return keyword.arg


@cache
def _entries() -> Mapping[str, ObjectiveEntry]:
    return {entry.name: entry for entry in objectives()}


def form_of(name: str) -> Form | None:
    """How an objective is called on a batch's views; None where it needs what encoders alone do not give.

    >>> form_of("NTXent").kind, form_of("SupCon").needs, form_of("ALBEFContrast")
    ('pair', ('label',), None)
    """
    if name in _OTHERWISE:
        return None
    signature = inspect.signature(_made(name).forward)
    given = [p for p in signature.parameters.values() if p.name != "self"]
    several = any(p.kind is p.VAR_POSITIONAL for p in given)
    required = [p.name for p in given if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    facts = tuple(fact for fact in required if fact in FACTS)
    takes = tuple(p.name for p in given if p.name in FACTS)
    views = tuple(p for p in required if p not in FACTS)
    if several and views in ((), ("anchor",)):
        return Form("views", facts, takes)
    if "label" in facts and views in (("z",), ("za",)):
        return Form("pair" if "zb" in signature.parameters else "labelled", facts, takes)
    kind = {("za", "zb"): "pair", ("z",): "single", ("a_tokens", "b_tokens"): "tokens"}.get(views)
    return None if kind is None else Form(kind, facts, takes)


def _class(name: str) -> type:
    if name not in _entries():
        raise no_such("objective", name, _entries(), "counterpoint losses")
    return resolve(f"{_entries()[name].module}:{name}")


def _made(name: str) -> type:
    """What is made of a choice: the objective, or it and the parts that it stands on."""
    return COMPLETED.get(name, _class(name))


class Chosen(nn.Module):
    """A chosen objective behind one way of calling it: views of the same samples, and what is known of these.

    >>> chosen = chosen_objective("NTXent(temperature=1.0)")
    >>> za, zb = torch.eye(2), torch.eye(2)
    >>> chosen(za, zb).item() == chosen.objective(za, zb).item(), chosen.name
    (True, 'ntxent')
    """

    def __init__(self, name: str, objective: nn.Module, form: Form, width: int | None = None) -> None:
        super().__init__()
        self.chosen, self.objective, self.form, self.width = name, objective, form, width

    @property
    def name(self) -> str:
        """The name of the loss term."""
        return self.chosen.lower()

    @property
    def joint(self) -> bool:
        """Whether all views are compared at once; else two by two."""
        return self.form.kind == "views"

    def forward(self, *views: Float[Tensor, "batch ... dim"], **facts: Tensor | None) -> Float[Tensor, ""]:
        """The objective of all views together, or its mean over their pairs."""
        known = {k: v for k, v in facts.items() if v is not None}
        for fact in self.form.needs:
            if fact not in known:
                raise InputError(
                    f"{self.chosen} needs a {fact} of every sample, which the batches of this system do not hold"
                )
        if (self.form.kind == "tokens") != (views[0].ndim == 3):
            what = "the tokens of two views, and this system gives one vector of each"
            raise InputError(f"{self.chosen} needs {what if self.form.kind == 'tokens' else 'one vector of each view'}")
        if self.width not in (None, views[0].shape[-1]):
            raise InputError(
                f"{self.chosen} was made for embeddings of width {self.width}, those of this system have "
                f"{views[0].shape[-1]}: choose '{self.chosen}(dim={views[0].shape[-1]})'"
            )
        given = {k: v for k, v in known.items() if k in self.form.takes}
        try:
            return torch.stack([self.objective(*some, **more) for some, more in self._calls(views, given)]).mean()
        except ValueError as error:  # what does not fit this batch or these widths
            raise InputError(f"objective {self.chosen}: {error}") from error

    def _calls(
        self, views: tuple[Tensor, ...], given: dict[str, Tensor]
    ) -> list[tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
        """The arguments of every call whose mean is the loss."""
        if self.form.kind == "views":
            return [(views, given)]
        if self.form.kind == "single":
            return [((z,), given) for z in views]
        if self.form.kind == "labelled":
            return [((torch.cat(views),), given | {"label": given["label"].repeat(len(views))})]
        return [((a, b), given) for i, a in enumerate(views) for b in views[i + 1 :]]


def chosen_objective(text: str, **defaults: Any) -> Chosen:
    """The objective that a configuration names, with `defaults` (a system's temperature, whether lengths count) where
    it takes them and the choice does not say otherwise.

    Raises `InputError` for an unknown name or option, a value that the objective refuses, one that needs more than
    encoders, and one that keeps a state whose size it must be told.
    """
    name, options = parse_choice(text)
    cls = _made(name)
    form = form_of(name)
    if form is None:
        raise InputError(
            f"objective {name} needs {_entries()[name].needs}: more than this system's encoders give; `counterpoint "
            "losses` lists the others"
        )
    takes = cls.options()
    for option in options:
        if option not in takes:
            raise no_such(f"option of {name}", option, takes)
    missing = [option for option, p in takes.items() if p.default is p.empty and option not in options]
    if missing:
        asked = ", ".join(f"{p} ({_SAID.get(p, ('see its documentation',))[0]})" for p in missing)
        shown = ", ".join(f"{p}={_SAID.get(p, ('', '1000'))[1]}" for p in missing)
        raise InputError(f"objective {name} must be told {asked}, as in '{name}({shown})'")
    given = {option: value for option, value in defaults.items() if option in takes} | options
    width = given.get("dim", takes["dim"].default) if "dim" in takes else None
    try:
        objective = cls(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"objective {text}: {error}") from error
    return Chosen(name, objective, form, width)
