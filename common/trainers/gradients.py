"""One optimisation step's gradients through cached embeddings, changed there where a plug-in does so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoint.common.data.batch import cut, rows
from counterpoint.common.losses import Shared
from counterpoint.common.rng import preserved_rng, rng_state, set_rng_state
from counterpoint.common.trainers.plugins import Gradients

Embed = Callable[[Any], dict[str, Tensor]]
Losses = Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]
Change = Callable[[Gradients], Gradients]


def total_loss(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of the terms; a term without a weight counts once."""
    unknown = set(weights) - set(terms)
    if unknown and not terms:
        raise ValueError("losses() returned no term")
    return sum(
        (weights.get(name, 1.0) * term for name, term in terms.items()),
        start=torch.zeros(()).to(next(iter(terms.values()))),
    )


def scalar(term: Tensor) -> Tensor:
    """A loss term as one number: of rows, their mean, over the batch of all ranks that share it.

    >>> scalar(torch.tensor([1.0, 3.0]))
    tensor(2.)
    """
    if term.ndim == 0:
        return term
    return Shared().mean(term.float() if term.dtype in (torch.float16, torch.bfloat16) else term)


def cached_gradients(
    module: nn.Module,
    embed: Embed,
    losses: Losses,
    batch: Any,
    micro_batch_size: int | None = None,
    weights: Mapping[str, float] | None = None,
    changes: Sequence[Change] = (),
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    check: Callable[[Mapping[str, Tensor]], None] = lambda terms: None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Accumulate the full batch's exact gradient into `.grad` while encoding `micro_batch_size` samples at a time.

    1. Embed every micro-batch without a graph, remembering the generators' states. 2. Compute the losses over all
    embeddings at once; this gives the gradient at each embedding and of the losses' own parameters. 3. Embed every
    micro-batch again with the same dropout, and send its rows of the gradient through the encoder.

    Equal to the full batch for encoders that treat samples independently (batch norm sees micro-batches; its running
    statistics are updated once). Returns the loss terms (scalars) and the embeddings, detached.

    `changes` are applied, one after the other, to the gradients at the embeddings of every weighted term.

    Source: Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", RepL4NLP 2021.
    """
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ValueError(f"micro_batch_size must be a positive number of samples (or None), got {micro_batch_size}")
    n = rows(batch)
    size = micro_batch_size or n
    chunks = [cut(batch, i, min(i + size, n)) for i in range(0, n, size)]
    states: list[dict[str, Any]] = []
    if len(chunks) == 1:
        live = embed(chunks[0])
        parts = [live]
    else:
        parts = []
        with torch.no_grad(), frozen_running_stats(module):
            for chunk in chunks:
                states.append(rng_state())
                parts.append(embed(chunk))
        for name, value in parts[0].items():
            if len(value) != rows(chunks[0]):
                raise ValueError(f"embedding {name!r} has {len(value)} rows for {rows(chunks[0])} samples")
    leaves = {k: torch.cat([p[k].detach() for p in parts]).requires_grad_() for k in parts[0]}
    terms = losses(batch, leaves)
    check(terms)
    weighted = {k: scale((weights or {}).get(k, 1.0) * v) for k, v in terms.items()}
    changed = gradients_at(leaves, weighted) if changes else {}
    for change in changes:
        changed = change(changed)
    total_loss(weighted, {}).backward()
    gradients = {k: v.grad for k, v in leaves.items() if v.grad is not None}
    if changes:
        gradients = {k: torch.stack([*terms.values()]).sum(0) for k, terms in changed.items() if terms}
    if len(chunks) == 1:
        _backward(live, gradients, 0)
    else:
        with preserved_rng():
            row = 0
            for chunk, state in zip(chunks, states):
                set_rng_state(state)
                _backward(embed(chunk), gradients, row)
                row += rows(chunk)
    return {k: v.detach() for k, v in terms.items()}, {k: v.detach() for k, v in leaves.items()}


def gradients_at(leaves: Mapping[str, Tensor], terms: Mapping[str, Tensor]) -> Gradients:
    """The gradient of every term at every embedding that it reaches."""
    found: Gradients = {name: {} for name in leaves}
    for term, value in terms.items():
        if value.requires_grad:
            gradients = torch.autograd.grad(value, [*leaves.values()], retain_graph=True, allow_unused=True)
            for name, gradient in zip(leaves, gradients):
                if gradient is not None:
                    found[name][term] = gradient
    return found


def _backward(embeddings: Mapping[str, Tensor], gradients: Mapping[str, Tensor], row: int) -> None:
    pairs = [(e, gradients[k][row : row + len(e)]) for k, e in embeddings.items() if k in gradients and e.requires_grad]
    if pairs:
        torch.autograd.backward([e for e, _ in pairs], [g.to(e.dtype) for e, g in pairs])


@contextlib.contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise as usual but leave their running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    kept = [
        [None if b is None else b.clone() for b in (m.running_mean, m.running_var, m.num_batches_tracked)]
        for m in norms
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, values in zip(norms, kept):
                for buffer, value in zip((norm.running_mean, norm.running_var, norm.num_batches_tracked), values):
                    if buffer is not None:
                        buffer.copy_(value)


def average_gradients(parameters: Sequence[nn.Parameter], bucket: int = 2**23) -> None:
    """Mean of the gradients over all ranks, in buckets; a rank without a gradient counts as zero."""
    world = dist.get_world_size()
    for p in parameters:
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)
    waiting: list[Tensor] = []
    grads = [p.grad for p in parameters if p.requires_grad and p.grad is not None]
    for i, grad in enumerate(grads):
        waiting.append(grad)
        last = i + 1 == len(grads)
        if last or sum(g.numel() for g in waiting) > bucket or grads[i + 1].dtype != grad.dtype:
            flat = torch.cat([g.reshape(-1) for g in waiting])
            dist.all_reduce(flat)
            flat /= world
            for g, mean in zip(waiting, flat.split([g.numel() for g in waiting])):
                g.copy_(mean.view_as(g))
            waiting = []
