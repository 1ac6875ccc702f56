"""Optimisers with parameter groups: what decays, what has its own learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig

OPTIMIZERS = ("adamw", "adam", "sgd", "lars")


def decays(name: str, parameter: Tensor) -> bool:
    """Matrices and kernels decay; biases, norms' gains, temperatures and other vectors and scalars do not."""
    return parameter.ndim > 1 and not name.endswith(("bias", "_token", "pos_embed"))


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> list[dict[str, Any]]:
    """Optimiser groups by (learning-rate scale, weight decay); each has `lr_scale` and `decay_scale` for the schedules.

    Scalars stand in groups of their own: sharded training keeps them whole, and an optimiser does not mix the kinds.

    >>> groups = parameter_groups(nn.Linear(2, 3).named_parameters(), OptimConfig(weight_decay=0.1))
    >>> [(g["names"], g["weight_decay"]) for g in groups]
    [(['weight'], 0.1), (['bias'], 0.0)]
    """
    rules = sorted(config.groups, key=lambda g: -len(g.prefix))
    matched = set()
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        rule = next((r for r in rules if name.startswith(r.prefix)), None)
        if rule is not None:
            matched.add(rule.prefix)
        if not parameter.requires_grad or (rule is not None and rule.lr_scale == 0):
            continue
        scale = rule.lr_scale if rule is not None else 1.0
        decay = config.weight_decay if rule is None or rule.weight_decay is None else rule.weight_decay
        decay = decay if decays(name, parameter) else 0.0
        group = groups.setdefault((scale, decay, parameter.ndim == 0), {"params": [], "names": []})
        group["params"].append(parameter)
        group["names"].append(name)
        group.update(lr=config.lr * scale, weight_decay=decay, lr_scale=scale)
        group["decay_scale"] = decay / config.weight_decay if config.weight_decay else 0.0
    for rule in rules:
        if rule.prefix not in matched:
            raise InputError(f"optim.groups: no parameter's name starts with {rule.prefix!r}")
    return list(groups.values())


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser named by `config.name` over the groups."""
    betas = (config.betas[0], config.betas[1])
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps)
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=config.lr, betas=betas, eps=config.eps)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.betas[0])
    if config.name == "lars":
        return LARS(groups, lr=config.lr, momentum=config.betas[0])
    raise InputError(f"optim.name {config.name!r} is not one of {', '.join(OPTIMIZERS)}")


class LARS(torch.optim.Optimizer):
    r"""Layer-wise adaptive rates: :math:`v \leftarrow \mu v + \lambda\,(g + \beta w)`, :math:`w \leftarrow w - \eta v`,
    :math:`\lambda = \text{trust}\,\lVert w\rVert / \lVert g + \beta w\rVert` for decayed parameters and 1 for others.

    Source: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, trust: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad
                if group["weight_decay"]:
                    update = update.add(p, alpha=group["weight_decay"])
                    norms = p.norm(), update.norm()
                    rate = torch.where((norms[0] > 0) & (norms[1] > 0), group["trust"] * norms[0] / norms[1], 1.0)
                    update = update * rate
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                p.add_(state["momentum_buffer"], alpha=-group["lr"])
        return loss
