"""What every layer of a projection head keeps: the figures of its output, for `evaluate --layers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Result, Split, evaluate_features
from counterpoint.common.models import Projector
from counterpoint.common.runs.encode import Encoded
from counterpoint.common.runs.measure import Examined

__all__ = ["layer_outputs", "layered"]

# What is asked of a layer, where the data allow it.
_PROTOCOLS = ("labelfree", "knn", "probe")


def layer_outputs(system: Any, reweight: float | None = None) -> Callable[[Any], dict[str, Tensor]]:
    """A function of a batch that gives the input and every layer's output of each projection head of the system.

    Heads are told apart by their names in the system (`heads.audio, layer 0` is what goes into that head). With
    `reweight` the last layer comes a second time, its dimension k multiplied by reweight^k.

    Raises `InputError` where the system has no `Projector`.
    """
    heads = {name: module for name, module in system.named_modules() if isinstance(module, Projector)}
    if not heads:
        kind = type(system).__name__
        raise InputError(f"--layers: {kind} has no projection head (counterpoint.common.models.Projector)")
    if reweight is not None and not 0 < reweight <= 1:
        raise InputError(f"--reweight: a number in (0, 1], got {reweight:g}")

    def outputs(batch: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def seen(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
            def hook(head: Any, given: tuple[Tensor, ...]) -> None:
                layers = head.layers(given[0])
                found.update({f"{name}, layer {place}": z for place, z in enumerate(layers)})
                if reweight is not None:
                    power = reweight ** torch.arange(layers[-1].shape[-1], device=layers[-1].device)
                    found[f"{name}, layer {len(layers) - 1} x {reweight:g}^k"] = layers[-1] * power

            return hook

        with ExitStack() as stack:
            for name, head in heads.items():
                stack.enter_context(_removed(head.register_forward_pre_hook(seen(name))))
            system.encode(batch)
        return found

    return outputs


class _removed:
    """A hook that ends with the block."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


def layered(
    seen: Examined, reweight: float | None = None, *, batch_size: int = 128, n_boot: int = 1000, seed: int = 0
) -> Mapping[str, Result]:
    """Label-free measures of every layer, with labels also neighbours and a probe learnt from the training split.

    Layers before the last ones often serve a task better whose augmentations did not fit: the lesson of
    "Investigating the Benefits of Projection Head for Representation Learning" (ICLR 2024).
    """
    system = seen.encoded.system
    outputs = layer_outputs(system, reweight)

    def split(part: Encoded) -> Split:
        rows = encode_rows(system, part.dataset, part.positions, what=outputs, batch_size=batch_size)
        return Split(rows.vectors, part.labels, part.groups)

    train = seen.others.get("train")
    task = "auto" if seen.encoded.labels is None else seen.evaluation.task
    names = [n for n in _PROTOCOLS if n == "labelfree" or (seen.encoded.labels is not None and train is not None)]
    if task == "regression" and "knn" in names:
        names.remove("knn")
    test = split(seen.encoded)
    learnt = None if train is None or names == ["labelfree"] else split(train)
    return evaluate_features(test, learnt, protocols=names, task=task, n_boot=n_boot, seed=seed).results
