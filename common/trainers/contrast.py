"""The contrastive term of a system whose method is encoders and such a term: as published, or another one by choice."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.data.batch import entry, rows
from counterpoint.common.data.dataset import group_codes
from counterpoint.common.errors import InputError
from counterpoint.common.losses.choice import Chosen, chosen_objective
from counterpoint.common.losses.completed import ClusteredMLCD
from counterpoint.common.trainers.cluster_labels import cluster_facts


def contrast_of(config: Any, published: nn.Module, tokens: bool = False) -> nn.Module:
    """The objective that `config.objective` names, or the published one where that is empty.

    A choice that does not say its temperature has the system's own (`config.temperature`); where the published one
    takes embeddings with their lengths (`normalize=False`), so does the choice. `tokens`: whether the system gives the
    tokens of its views where the choice compares these.

    Raises `InputError` as `chosen_objective` does, and for one that compares tokens where there are none.
    """
    if not config.objective:
        return published
    known = {"temperature": config.temperature} if hasattr(config, "temperature") else {}
    if getattr(published, "normalizes", None) and not published.normalize:
        known["normalize"] = False
    chosen = chosen_objective(config.objective, **known)
    if chosen.form.kind == "tokens" and not tokens:
        raise InputError(
            f"objective {chosen.chosen} needs tokens of both sides, and this system gives one vector of each view"
        )
    return chosen


def contrast_terms(
    objective: nn.Module, name: str, views: Mapping[str, Tensor], batch: Any, **known: Any
) -> dict[str, Tensor]:
    """Loss terms of views of the same samples: the published objective on two of them under the name `name`, or the
    chosen one under its own, on all of them.

    `known` is what the published objective is told of the samples (ids, targets); a chosen one also hears their index
    and, where the batch has one, their label. An objective that has a loss of every sample (`row_losses`) gives these.
    """
    inner, facts = objective, dict(known)
    if isinstance(objective, Chosen):
        inner, name, facts = objective.objective, objective.name, _facts(batch, known)
        if isinstance(inner, ClusteredMLCD):
            facts["clusters"] = cluster_facts(inner, entry(batch, "id"), next(iter(views.values())).device)
    if not _has_rows(inner, views, batch):
        return {name: objective(*views.values(), **facts)}
    given = {k: v for k, v in facts.items() if k in inspect.signature(inner.row_losses).parameters}
    rows_of = [inner.row_losses(a, b, **given) for a, b in combinations(views.values(), 2)]
    return {name: torch.stack(rows_of).mean(0)}


def _has_rows(objective: Any, views: Mapping[str, Tensor], batch: Any) -> bool:
    """Whether two views make a loss of every sample of the batch, of which the objective's value is the mean."""
    methods = ("forward", "row_losses")
    owners = [next((c for c in type(objective).__mro__ if m in vars(c)), None) for m in methods]
    if None in owners or owners[0] is not owners[1] or "za" not in inspect.signature(objective.row_losses).parameters:
        return False
    return entry(batch, "index") is not None and {len(v) for v in views.values()} == {rows(batch)}


def _facts(batch: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    facts = dict(known)
    index, label = entry(batch, "index"), entry(batch, "label")
    if isinstance(index, Tensor):
        facts.setdefault("index", index)
    if label is not None:
        facts.setdefault("label", label_codes(label, like=index))
    return facts


def label_codes(labels: Tensor | Sequence[Any], like: Tensor | None = None) -> Tensor:
    """Labels as integers, equal for equal labels on every rank; a sample without a label is alone with its own.

    >>> codes = label_codes(["a", "", "a", None])
    >>> len(set(codes.tolist())), bool(codes[0] == codes[2])
    (3, True)
    """
    if isinstance(labels, Tensor):
        return labels
    index = torch.arange(len(labels)) if like is None else like.cpu()
    codes = group_codes([str(label or "") for label in labels])
    missing = torch.tensor([label in (None, "") or label != label for label in labels])
    codes = torch.where(missing, -1 - index, codes)
    return codes if like is None else codes.to(like.device)
