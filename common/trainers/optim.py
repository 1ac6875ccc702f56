"""Optimisers with parameter groups: what decays, what has its own learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers.configs import OptimConfig
from counterpoint.common.trainers.trusted import trusted_class


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


def share_out(groups: list[dict[str, Any]], parts: Sequence[tuple[str, ...]]) -> list[list[dict[str, Any]]]:
    """The groups of each part, a part being the prefixes of its parameters' names; `()` has all of them.

    >>> groups = parameter_groups(nn.Linear(2, 3).named_parameters(), OptimConfig())
    >>> [[g["names"] for g in part] for part in share_out(groups, [("bias",), ("weight",)])]
    [[['bias']], [['weight']]]

    Raises:
        ValueError: a parameter belongs to no part or to several, or a part is empty.
    """
    for group in groups:
        for name in group["names"]:
            owners = [part for part in parts if not part or name.startswith(part)]
            if len(owners) != 1:
                raise ValueError(f"optimizer_parts: {len(owners)} of the optimisers take {name}; one must")
    shared = []
    for part in parts:
        own = []
        for group in groups:
            kept = [(n, p) for n, p in zip(group["names"], group["params"]) if not part or n.startswith(part)]
            if kept:
                own.append({**group, "names": [n for n, _ in kept], "params": [p for _, p in kept]})
        if not own:
            raise ValueError(f"optimizer_parts: no trained parameter's name starts with {' or '.join(part)}")
        shared.append(own)
    return shared


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser named by `config.name` over the groups."""
    betas = (config.betas[0], config.betas[1])
    known: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": partial(torch.optim.AdamW, betas=betas, eps=config.eps),
        "adam": partial(torch.optim.Adam, betas=betas, eps=config.eps),
        "sgd": partial(torch.optim.SGD, momentum=config.betas[0]),
        "lars": partial(LARS, momentum=config.betas[0]),
    }
    if config.name in known:
        create = known[config.name]
    elif "." in config.name or ":" in config.name:
        cls = optimizer_class(config.name)
        create = partial(cls, **_own_options(cls, config))
    else:
        raise InputError(
            f"optim.name {config.name!r} is not one of {', '.join(known)}; give one of these or a class by its dotted "
            "name, as in torch.optim.RAdam"
        )
    try:
        return create(groups, lr=config.lr, **{name: _number(value) for name, value in config.options.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"optim.name {config.name}: {' '.join(str(error).split())}") from error


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class of a dotted name: of `torch.optim`, or of a module that `trusted_class` trusts."""
    module, _, cls = name.replace(":", ".").rpartition(".")
    found = getattr(torch.optim, cls, None) if module == "torch.optim" else None
    if module != "torch.optim":
        found = trusted_class(f"{module}:{cls}", torch.optim.Optimizer, "optim.name")
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise no_such("optimiser", name, [f"torch.optim.{n}" for n in torch.optim.__all__], "pytorch.org, torch.optim")
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(f"optim.name {name}: its step needs a closure, which this training does not give")
    return found


def _own_options(cls: type[torch.optim.Optimizer], config: OptimConfig) -> dict[str, Any]:
    """`betas` and `eps` where they were changed, else the class's own; what it does not know is refused."""
    takes = inspect.signature(cls.__init__).parameters
    plain = OptimConfig()
    changed = {n: getattr(config, n) for n in ("betas", "eps") if getattr(config, n) != getattr(plain, n)}
    wanted = {**changed, **({"weight_decay": 0} if config.weight_decay else {}), **config.options}
    for name in wanted:
        if name not in takes:
            where = "options." if name in config.options else ""
            instead = "set it to 0" if name == "weight_decay" else "leave it out"
            raise InputError(f"optim.{where}{name}: {config.name} has no {name}; {instead}")
    return {n: tuple(v) if isinstance(v, (list, tuple)) else v for n, v in changed.items()}


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


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
