"""Contrasts over one, two and three gloo processes against the dense definition on the whole batch.

Run by test_ring.py as a script: it starts three processes, works all cases in groups of one, two and three of them, and
prints the largest error of each case as JSON.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from counterpoint.common.kernels import (
    Affine,
    Diagonal,
    Gibbs,
    Index,
    Mix,
    Pairs,
    SameLabel,
    Self,
    Uniform,
    Weighted,
    contrast_stats,
    gather_rows,
    pair_sum,
    sinkhorn,
    target_scores,
    topk_scores,
)

ROWS, DIM = 17, 6
SPLITS = {1: [17], 2: [9, 8], 3: [4, 7, 6]}
FIELDS = ("lse", "positive", "mean")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def world():
    """Everything a case may use: the whole batch, as leaves."""
    g = rng()

    def leaf(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def unit(*shape):
        return torch.nn.functional.normalize(leaf(*shape), dim=-1)

    return {
        "q": unit(ROWS, DIM), "k": unit(ROWS, DIM), "scale": torch.tensor(9.0, dtype=torch.float64),
        "row_scale": leaf(2, ROWS).abs() * 5, "col_scale": leaf(ROWS).abs(), "row_bias": leaf(ROWS),
        "col_bias": leaf(2, ROWS), "batch_q": unit(2, ROWS, DIM), "batch_k": unit(2, ROWS, DIM),
        "weights": leaf(20, ROWS),
    }  # fmt: skip


LABELS = torch.randint(0, 4, (ROWS,), generator=rng(1))
OTHERS = torch.randint(0, 3, (ROWS,), generator=rng(2))
POSITIVE = torch.randint(-1, ROWS, (ROWS,), generator=rng(3))
NAMED = torch.randint(-1, ROWS, (ROWS, 2), generator=rng(4))
VALID = torch.rand(ROWS, generator=rng(5)) > 0.2
LISTED = torch.randint(0, ROWS, (3 * ROWS,), generator=rng(6)), torch.randint(0, ROWS, (3 * ROWS,), generator=rng(7))


def pairs(rows: slice) -> Pairs:
    """The listed pairs of some rows; columns count over the union."""
    row, col = LISTED
    mine = (row >= rows.start) & (row < rows.stop)
    return Pairs.from_rows(row[mine] - rows.start, col[mine], rows.stop - rows.start)


# Each case: local part of the batch -> {name: statistics to weigh}. `at` is the slice of rows (and columns) held here.


def clip(x, at, **how):
    stats = contrast_stats(x["q"], x["k"], scale=x["scale"], positive=Diagonal(), columns=True, **how)
    both = stats.lse - stats.positive + stats.columns.lse - stats.columns.positive
    return {"loss": both / 2}


def everything(x, at, **how):
    stats = contrast_stats(
        x["q"], x["k"], scale=x["row_scale"], col_scale=x["col_scale"], row_bias=x["row_bias"], col_bias=x["col_bias"],
        positive=Index(POSITIVE[at]), valid_cols=VALID[at], score_floor=torch.full_like(x["row_bias"], -0.6),
        exclude=[Self(), Index(NAMED[at]), SameLabel(LABELS[at])], only=[SameLabel(OTHERS[at], LABELS[at]), pairs(at)],
        columns=True, mean=True, **how,
    )  # fmt: skip
    empty = stats.count == 0, stats.columns.count == 0
    return {
        "lse": stats.lse.masked_fill(empty[0], 0.0), "positive": stats.positive, "mean": stats.mean,
        "col_lse": stats.columns.lse.masked_fill(empty[1], 0.0), "col_mean": stats.columns.mean,
        "count": stats.count.double(), "col_count": stats.columns.count.double(),
    }  # fmt: skip


def batched(x, at, **how):
    stats = contrast_stats(x["batch_q"], x["batch_k"], scale=x["scale"], exclude=Self(), columns=True, **how)
    return {"lse": stats.lse, "col_lse": stats.columns.lse}


def large_scale(x, at, **how):
    stats = contrast_stats(x["q"], x["k"], scale=x["scale"] * 100, positive=Diagonal(), columns=True, **how)
    return {"lse": stats.lse - stats.positive, "col_lse": stats.columns.lse}


def rows_alone(x, at, **how):
    stats = contrast_stats(x["q"], x["k"], scale=x["scale"], only=SameLabel(LABELS[at]), mean=True, **how)
    return {"lse": stats.lse.masked_fill(stats.count == 0, 0.0), "mean": stats.mean}


def siglip(x, at, **how):
    how.pop("deterministic", None)
    bias = x["col_bias"][0]
    return {"sum": pair_sum(x["q"], x["k"], scale=x["scale"], col_bias=bias, positive=Diagonal(), **how)}


def soft_count(x, at, **how):
    how.pop("deterministic", None)
    return {
        "sum": pair_sum(
            x["q"], x["k"], fn="sigmoid", scale=x["scale"], exclude=[Self(), SameLabel(LABELS[at])],
            valid_cols=VALID[at], **how,
        )
    }  # fmt: skip


def targets(x, at, **how):
    """Every target, alone and mixed; column numbers count over the union."""
    how = {n: v for n, v in how.items() if n != "backend"}
    e, t = x["batch_q"][0], x["batch_k"].detach()
    teacher = {"scale": 3.0, "col_bias": x["col_bias"][0].detach(), "valid_cols": VALID[at]}
    listed = Weighted(NAMED[at], torch.stack([x["row_bias"], x["row_bias"] ** 2], 1))
    every = {
        "diagonal": Diagonal(), "index": Index(POSITIVE[at]), "weighted": listed, "uniform": Uniform(),
        "label": SameLabel(LABELS[at], exclude_self=True), "label of columns": SameLabel(LABELS[at], OTHERS[at]),
        "affine": Affine(t[0], t[1], 0.3, 0.7), "gibbs": Gibbs(t[0], t[1], **teacher),
        "plan": Gibbs(t[0], t[1], row_bias=x["row_bias"].detach(), normalized=False, **teacher),
    }  # fmt: skip
    every["mix"] = Mix([(0.5, every["gibbs"]), (x["row_bias"], every["label"]), (2.0, every["diagonal"])])
    found = {name: target_scores(e, x["k"], target, **how) for name, target in every.items()}
    return {f"{name} {part}": v for name, pair in found.items() for part, v in zip(("score", "mass"), pair)}


def nearest(x, at, **how):
    """The best columns of the union, their keys with gradients, and transport of shards onto shards and prototypes."""
    how = {n: v for n, v in how.items() if n != "backend"}
    group = how.get("process_group")
    exclude = [Self(), SameLabel(LABELS[at])]
    values, index = topk_scores(x["q"], x["k"], 3, exclude=exclude, valid_cols=VALID[at], **how)
    keys = gather_rows(x["k"], group) if how else x["k"]
    near = (x["q"][:, None] * keys[index.clamp_min(0)]).sum(-1).masked_fill(index < 0, 0.0)
    rows, columns = sinkhorn(x["q"].detach(), x["k"].detach(), epsilon=0.3, iterations=4, **how)
    onto, prototypes = sinkhorn(x["q"].detach(), world()["k"][:5], epsilon=0.3, iterations=4, columns="shared", **how)
    return {
        "values": values[:, 0], "index": index[:, 2].double(), "near": near[:, 0] + near[:, 2],
        "plan": torch.exp((x["q"] * x["k"]).sum(-1) / 0.3 + rows + columns), "onto": onto,
        "prototypes": prototypes.sum() + onto * 0,
    }  # fmt: skip


CASES = [clip, everything, batched, large_scale, rows_alone, siglip, soft_count, targets, nearest]
SHARED = ("scale",)  # parameters every rank holds


def cut(name, t, at):
    if name in SHARED:
        return t
    return t[..., at, :] if name in ("q", "k", "batch_q", "batch_k") else t[..., at]


def total(case, x, at, **how):
    """The weighted sum of a case's statistics over the rows held here, and the statistics."""
    values = case(x, at, **how)
    loss = sum((x["weights"][i] * v).sum() for i, v in enumerate(values.values()))
    return loss, {n: v.detach() for n, v in values.items()}


def gradients(case, x, at, **how):
    leaves = {n: t.clone().requires_grad_(n != "weights") for n, t in x.items()}
    loss, values = total(case, leaves, at, **how)
    loss.backward()
    return values, {n: t.grad for n, t in leaves.items() if t.grad is not None}


def compare(case, mode, group, size, rank) -> float:
    """Largest error of values and gradients. Ranks' losses add up, so shared parameters' gradients do too."""
    x = world()
    whole, expected = gradients(case, x, slice(0, ROWS), backend="dense")
    starts = [sum(SPLITS[size][:r]) for r in range(size + 1)]
    at = slice(starts[rank], starts[rank + 1])
    local = {n: cut(n, t, at) for n, t in x.items()}
    values, grads = gradients(case, local, at, distributed=mode, process_group=group)
    again = gradients(case, local, at, distributed=mode, process_group=group)
    errors = [(values[n] - whole[n][..., at]).abs().max() for n in whole]
    for name, want in expected.items():
        got = grads[name]
        if name in SHARED:
            dist.all_reduce(got := got.clone(), group=group)
            errors.append((got - want).abs() / want.abs())
        else:
            assert torch.equal(got, again[1][name]), f"{case.__name__}: two runs differ in {name}"
            errors.append((got - cut(name, want, at)).abs().max() / want.abs().max())
    assert set(grads) == set(expected), (set(grads), set(expected))
    return float(torch.stack([e.max() for e in errors]).max())  # NaN stays NaN


def diagonal_means_the_same_rank(mode, group, size, rank) -> float:
    """Diagonal(1) names the next key of the same rank only; Self with an offset counts over the union."""
    x = world()
    starts = [sum(SPLITS[size][:r]) for r in range(size + 1)]
    at = slice(starts[rank], starts[rank + 1])
    column = torch.arange(at.start, at.stop) + 1
    local = torch.where(column < at.stop, column, -1)
    how = {"scale": 3.0, "backend": "dense"}
    want = contrast_stats(x["q"][at], x["k"], exclude=Index(local), positive=Index(local), **how)
    how = {"scale": 3.0, "distributed": mode, "process_group": group}
    got = contrast_stats(x["q"][at], x["k"][at], exclude=Diagonal(1), positive=Diagonal(1), **how)
    everywhere = torch.where(column < ROWS, column, -1)
    after = contrast_stats(x["q"][at], x["k"], scale=3.0, exclude=Index(everywhere), backend="dense")
    shifted = contrast_stats(x["q"][at], x["k"][at], exclude=Self(), row_offset=1, **how)
    found = zip((got.lse, got.positive, shifted.lse), (want.lse, want.positive, after.lse))
    return float(torch.stack([(a - b).abs().max() for a, b in found]).max())


def unequal_rows_and_columns(mode, group, size, rank) -> float:
    """A rank may hold more keys than rows (hard negatives appended): Self and Diagonal stay on the rank."""
    q, k = (
        torch.randn(ROWS, DIM, generator=rng(8)).double(),
        torch.randn(ROWS + 2 * size, DIM, generator=rng(9)).double(),
    )
    starts = [sum(SPLITS[size][:r]) for r in range(size + 1)]
    at, cols = slice(starts[rank], starts[rank + 1]), slice(starts[rank] + 2 * rank, starts[rank + 1] + 2 * rank + 2)
    own = Index(torch.arange(at.stop - at.start) + cols.start)
    want = contrast_stats(q[at], k, exclude=own, positive=own, backend="dense")
    how = {"distributed": mode, "process_group": group}
    got = contrast_stats(q[at], k[cols], exclude=Self(), positive=Diagonal(), **how)
    return float(torch.stack([(got.lse - want.lse).abs().max(), (got.positive - want.positive).abs().max()]).max())


def half_precision_keys_travel(mode, group, size, rank) -> float:
    """bfloat16 keys cross ranks as they are; logits stay float32."""
    x = world()
    starts = [sum(SPLITS[size][:r]) for r in range(size + 1)]
    at = slice(starts[rank], starts[rank + 1])
    q, k = x["q"].bfloat16(), x["k"].bfloat16()
    want = contrast_stats(q.double(), k.double(), scale=20.0, backend="dense")
    got = contrast_stats(q[at], k[at], scale=20.0, distributed=mode, process_group=group)
    assert got.lse.dtype == torch.float32
    return float((got.lse - want.lse[at]).abs().max())


def disagreement_is_an_error(mode, group, size, rank) -> float:
    """A rank that asks for something else would leave the others waiting; all are told instead."""
    x = world()
    try:
        contrast_stats(x["q"], x["k"], mean=rank == 0, distributed=mode, process_group=group)
    except ValueError as error:
        return 0.0 if "agree about mean" in str(error) else 1.0
    return 0.0 if size == 1 else 1.0


class Towers(torch.nn.Module):
    """Two linear encoders and a learnt logit scale: what DistributedDataParallel averages."""

    def __init__(self):
        super().__init__()
        self.left, self.right = torch.nn.Linear(5, DIM).double(), torch.nn.Linear(4, DIM).double()
        self.log_scale = torch.nn.Parameter(torch.tensor(2.0).double())

    def forward(self, a, b, **how):
        q, k = (torch.nn.functional.normalize(f(x), dim=-1) for f, x in ((self.left, a), (self.right, b)))
        stats = contrast_stats(q, k, scale=self.log_scale.exp(), positive=Diagonal(), columns=True, **how)
        return (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean() / 2


def data_parallel_averages_to_one_process(mode, group, size, rank) -> float:
    """Means over local rows + DDP's averaging == one process on the whole batch, for every parameter."""
    torch.manual_seed(0)
    towers, a, b = Towers(), torch.randn(12, 5).double(), torch.randn(12, 4).double()
    towers(a, b, backend="dense").backward()
    want = {name: p.grad for name, p in towers.named_parameters()}
    towers.zero_grad()
    parallel = torch.nn.parallel.DistributedDataParallel(towers, process_group=group)
    at = slice(rank * 12 // size, (rank + 1) * 12 // size)
    parallel(a[at], b[at], distributed=mode, process_group=group).backward()
    return float(torch.stack([(p.grad - want[name]).abs().max() for name, p in towers.named_parameters()]).max())


def main(rank: int, size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    # Groups that do not start at rank 0 show whether places in a group and ranks of the world are kept apart.
    groups = {1: dist.new_group([0]), 2: dist.new_group([1, 2]), 3: dist.new_group([0, 1, 2])}
    errors = {}
    for members, group in groups.items():
        place = dist.get_rank(group)
        if place < 0:
            continue
        for mode in ("ring", "gather"):
            checks = {case.__name__: partial(compare, case) for case in CASES}
            others = (
                diagonal_means_the_same_rank, unequal_rows_and_columns, half_precision_keys_travel,
                data_parallel_averages_to_one_process, disagreement_is_an_error,
            )  # fmt: skip
            checks |= {check.__name__: check for check in others}
            for name, check in checks.items():
                errors[f"{name} {mode} {members}"] = check(mode, group, members, place)
    everyone = [None] * size
    dist.all_gather_object(everyone, errors)
    if rank == 0:
        worst = {name: float(torch.tensor([e.get(name, 0.0) for e in everyone]).max()) for e in everyone for name in e}
        Path(store + ".json").write_text(json.dumps(worst))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, (3, f"{folder}/store"), nprocs=3)
        sys.stdout.write(Path(f"{folder}/store.json").read_text())
