"""Fully sharded training: every process keeps its share of the weights, gradients and optimiser state, no more.

A checkpoint holds whole tensors, so a sharded run is read, resumed and evaluated anywhere, in one process too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from counterpoint.common.trainers.gradients import average_gradients

FORWARDS = ("embed", "losses", "encode", "features")


class ShardedStrategy(DDPStrategy):
    """Lightning's processes and devices as for DDP, PyTorch's `fully_shard` in place of the wrapper.

    Lightning's own sharded strategies hook the module's forward pass; here losses are differentiated inside
    `training_step`, so it is `embed` and `losses` that gather the weights and return the gradients.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:  # type: ignore[override]
        shard(model, init_device_mesh(self.root_device.type, (dist.get_world_size(),)))
        return model

    def _register_ddp_hooks(self) -> None:
        """Sharded modules bring their own."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on the main process, nothing on the others; every process calls this."""
        assert self.lightning_module is not None
        align_statistics(self.lightning_module)
        return gathered(self.lightning_module.state_dict(), keep=self.is_global_zero)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole optimiser state on the main process; every process calls this."""
        return gathered(optimizer.state_dict(), keep=self.is_global_zero)


def shard(system: Any, mesh: DeviceMesh) -> None:
    """Distribute a system's parameters over the mesh, once for all stages.

    Parts named by `system.sharded_parts()` gather their weights for their own forward and backward pass only; what is
    left is gathered for the step. Scalars (temperatures, biases) stay whole on every process.
    """
    if isinstance(system, FSDPModule):
        return
    with torch.no_grad():
        for tensor in [*system.parameters(), *system.buffers()]:
            dist.broadcast(tensor.data, 0)
    scalars = {p for p in system.parameters() if p.ndim == 0}
    for part in system.sharded_parts():
        if any(p.ndim for p in part.parameters()):
            fully_shard(part, mesh=mesh, ignored_params=scalars)
    fully_shard(system, mesh=mesh, reshard_after_forward=False, ignored_params=scalars)
    for part in sharded_modules(system):
        part.set_force_sum_reduction_for_comms(mesh.device_type == "cpu")  # gloo knows no mean
    for name in FORWARDS:
        register_fsdp_forward_method(system, name)


def list_entries(system: nn.Module) -> list[nn.Module]:
    """The modules that stand in an `nn.ModuleList`, outermost lists only.

    >>> [type(m).__name__ for m in list_entries(nn.Sequential(nn.ModuleList([nn.Linear(1, 1), nn.ReLU()])))]
    ['Linear', 'ReLU']
    """
    lists = [m for m in system.modules() if isinstance(m, nn.ModuleList)]
    nested = {id(inner) for outer in lists for entry in outer for inner in entry.modules()}
    entries = [entry for part in lists if id(part) not in nested for entry in part]
    return [e for e in entries if not isinstance(e, (nn.ModuleList, nn.ModuleDict, nn.ParameterList))]


def sharded_modules(system: nn.Module) -> list[Any]:
    """The parts that hold distributed parameters; none where nothing is sharded."""
    return [m for m in system.modules() if isinstance(m, FSDPModule)]


def settle_gradients(system: nn.Module) -> None:
    """After backward: give gathered weights back, and take the mean of what every process holds whole."""
    parts = sharded_modules(system)
    if not parts:
        return
    for part in parts:
        part.reshard()
    average_gradients([p for p in system.parameters() if not isinstance(p, DTensor)])


@torch.no_grad()
def align_statistics(system: nn.Module) -> None:
    """The main process's running statistics for every process's batch norms, as DDP has it."""
    if not sharded_modules(system):
        return
    for part in system.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            for buffer in part.buffers():
                dist.broadcast(buffer, 0)


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients to a global norm of `limit` at most; returns the norm over all shards.

    >>> p = nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> float(clip_gradients([p], 1.0)), round(float(p.grad.norm()), 4)
    (5.0, 1.0)
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    shards = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    if not shards:
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
    whole = [g for g in gradients if not isinstance(g, DTensor)]
    squares = _squares(shards, like=shards[0])
    dist.all_reduce(squares)
    norm = (squares + _squares(whole, like=shards[0])).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in [*shards, *whole]:
        gradient.mul_(factor.to(gradient.dtype))
    return norm


def _squares(tensors: Iterable[Tensor], like: Tensor) -> Tensor:
    return sum((t.double().square().sum() for t in tensors), start=like.new_zeros((), dtype=torch.float64))


def gathered(tree: Any, keep: bool) -> Any:
    """The tree with whole tensors on the CPU in place of distributed ones; without `keep`, with None in their place."""
    if isinstance(tree, DTensor):
        whole = tree.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(tree, Mapping):
        return {k: gathered(v, keep) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(gathered(v, keep) for v in tree)
    return tree


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put a checkpoint's whole optimiser state back, each process its share."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {}
    for i, values in saved["state"].items():
        like = parameters[int(i)]
        whole = {k: _grown(v, like) for k, v in values.items()}
        state[i] = {k: _share(v, like) for k, v in whole.items()} if isinstance(like, DTensor) else whole
    optimizer.load_state_dict({**saved, "state": state})


def _grown(value: Any, like: Tensor) -> Any:
    """The state of a table that has grown since it was saved: new rows have none yet, which is zero."""
    if not isinstance(value, Tensor) or value.ndim != like.ndim or value.ndim == 0:
        return value
    if len(value) >= len(like) or value.shape[1:] != like.shape[1:]:
        return value
    return torch.cat([value, value.new_zeros(len(like) - len(value), *value.shape[1:])])


def _share(value: Any, like: DTensor) -> Any:
    if not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
