"""Run by test_ranks.py, one process per rank: sharded losses against the single-process loss of the whole batch."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import torch
import torch.distributed as dist
from torch import Tensor

import counterpoint.common.losses as losses
from counterpoint.common.kernels import Diagonal, Gibbs, Index, Mix, Pairs, SameLabel, Uniform

ROWS, DIM, WORLD = 4, 6, 2
ALL = ROWS * WORLD
# What the two ranks hold is uneven: rank 0 has three of group 0 and one row of class 2, rank 1 most of class 2.
GROUP = torch.tensor([0, 0, 0, 2, 2, 3, 1, 4])
LABEL = torch.tensor([0, 1, 0, 2, 1, 2, 2, 2])
TWICE = torch.tensor([0, 1, 2, 2, 3, 1, 0, 3])
TARGET = torch.tensor([True, False, False, False, True, True, True, False])
INDEX = torch.randperm(12, generator=torch.Generator().manual_seed(3))[:ALL]
POSITIVES = Pairs(torch.tensor([0, 1, 1, 3, 4, 6, 7, 9, 10]), torch.tensor([3, 0, 6, 2, 1, 5, 8, 4, 7, 0]))
COLUMN = torch.tensor([5, 0, -1, 3, 1, 7, 6, 2])


def z(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(count: int) -> tuple[Tensor, ...]:
    return tuple(z(ALL, DIM, seed=seed) for seed in range(count))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@dataclass
class Held:
    """The same tensor on every rank, as a parameter is."""

    value: Tensor


@dataclass
class Heads:
    """A tensor whose second axis counts rows."""

    value: Tensor


@dataclass
class By:
    """What the rows `at` are given."""

    make: Callable


@dataclass
class Case:
    make: Callable
    arguments: tuple
    keywords: dict = field(default_factory=dict)
    passes: int = 2  # states then hold something


def local(value, at: slice):
    if isinstance(value, Held):
        return value.value
    if isinstance(value, Heads):
        return value.value[:, at]
    if isinstance(value, By):
        return value.make(at)
    if isinstance(value, Pairs):
        ptr = value.ptr[at.start : at.stop + 1]
        return Pairs(ptr - ptr[0], value.col[ptr[0] : ptr[-1]])
    return value[at]


class EvenMix(losses.SupReMix):
    """One mixing weight for all pairs: a drawn one would depend on the order of the rows."""

    def draw(self, rows: int, like: Tensor) -> Tensor:
        return like.new_full((rows, rows), 0.3)


# Means over rows: ranks of unequal size, one of them without any row, average to the whole mean.
UNEVEN = ("InfoNCE", "InfoNCE soft targets", "NTXent", "SupCon", "CWCL", "GRAM", "HardContrastive", "SwAV", "Symile",
          "DCL", "DHEL", "HCL", "MVDHEL", "SigLIP")  # fmt: skip


def targets(at: slice):
    """A mixture of targets for both directions; column numbers count over the union."""
    teacher = z(ALL, 3, seed=7)[at]
    parts = [(0.5, Gibbs(teacher, teacher, scale=2.0)), (0.2, SameLabel(LABEL[at])), (0.2, Index(COLUMN[at]))]
    return Mix([*parts, (0.05, Uniform()), (0.05, Diagonal())])


def pixpro(seed: int) -> tuple:
    maps = [z(ALL, 4, 2, 2, seed=seed + i) for i in range(4)]
    spots = [By(lambda at, i=i: z(ALL, 2, 2, 2, seed=10 + i)[at]) for i in range(2)]
    return (*maps, *spots, *[By(lambda at: torch.ones(ALL, dtype=torch.float64)[at])] * 2)


def cases() -> dict[str, Case]:
    """Every objective; the first word of a name is its class. Those called without `m` have rows that never meet."""
    two, three, four = views(2), views(3), views(4)
    tokens = z(ALL, 3, DIM, seed=5), z(ALL, 2, DIM, seed=6)
    mask = torch.arange(3) < torch.tensor([3, 3, 2, 3, 1, 1, 2, 0])[:, None]
    spoken = torch.arange(4) < torch.randint(1, 5, (ALL, 3, 1), generator=seeded())
    caption = torch.randint(0, 4, (ALL, 3), generator=seeded()) * mask
    perm = torch.tensor([1, 0, 2, 3, 6, 7, 5, 4])
    mixture = {"perm": By(lambda at: perm[at] - at.start), "mixing": By(lambda at: z(ALL, seed=4).sigmoid()[at])}
    labels = (z(ALL, DIM), Held(z(9, DIM, seed=1)), POSITIVES)
    soft = {"targets": By(targets)}
    mixed = {"hardest": 1, "mixed": 2, "mixed_with_query": 0}  # one candidate each: no chance is left
    order = torch.arange(ALL, dtype=torch.float64)[torch.argsort(INDEX)] // 2
    return {
        "ALBEFContrast": Case(lambda m: losses.ALBEFContrast(DIM, 12, distributed=m), four, {"index": INDEX}),
        "ALBEFContrast without ids": Case(lambda m: losses.ALBEFContrast(DIM, 12, distributed=m), four),
        "Alignment": Case(lambda m: losses.Alignment(), two),
        "AMCL": Case(
            lambda m: losses.AMCL(DIM, hardest=3, distributed=m), (Heads(z(2, ALL, DIM)), Heads(z(2, ALL, DIM, seed=1)))
        ),
        "BalancedSoftmax": Case(lambda m: losses.BalancedSoftmax(torch.arange(1.0, 7.0)), (z(ALL, DIM), LABEL)),
        "BarlowTwins": Case(lambda m: losses.BarlowTwins(distributed=m), two),
        "BMC": Case(lambda m: losses.BMC(distributed=m), (z(ALL, 2), z(ALL, 2, seed=1))),
        "BNI": Case(lambda m: losses.BNI(torch.zeros(2), torch.ones(2) / 2), (z(ALL), z(ALL, seed=1))),
        "CACR": Case(lambda m: losses.CACR(distributed=m), three),
        "CoCa": Case(lambda m: losses.CoCa(distributed=m), (*two, z(ALL, 3, 7), caption)),
        "CrossModalHCL": Case(lambda m: losses.CrossModalHCL(0.5, tau_plus=0.01, distributed=m), two),
        "CrossUniformity": Case(lambda m: losses.CrossUniformity(distributed=m), two),
        "CUA": Case(lambda m: losses.CUA(0.1, distributed=m), two, {"group": GROUP}),
        "CWCL": Case(lambda m: losses.CWCL(losses.LogitScale(0.1), distributed=m), two),
        "CWCL teacher": Case(
            lambda m: losses.CWCL(0.1, distributed=m), two, {"teacher": By(lambda at: z(ALL, 3, seed=8)[at])}
        ),
        "DCL": Case(lambda m: losses.DCL(0.1, distributed=m), two),
        "DCLW": Case(lambda m: losses.DCLW(0.1, distributed=m), two, {"group": GROUP}),
        "DecoupledSoftmax": Case(lambda m: losses.DecoupledSoftmax(losses.LogitScale(0.1)), labels),
        "DHEL": Case(lambda m: losses.DHEL(0.3, distributed=m), two, {"group": GROUP}),
        "FastCLIP": Case(lambda m: losses.FastCLIP(12, 0.3, gamma=0.6, distributed=m), two, {"index": INDEX}),
        "GAI": Case(lambda m: losses.GAI(torch.zeros(2), torch.ones(2), torch.ones(2) / 2), (z(ALL), z(ALL, seed=1))),
        "GRAM": Case(lambda m: losses.GRAM(losses.LogitScale(0.1), block=3, distributed=m), three),
        "HardContrastive": Case(lambda m: losses.HardContrastive(losses.LogitScale(0.3), keep=0.3, distributed=m), two),
        "HBI": Case(lambda m: losses.HBI(0.1, block=3, distributed=m), tokens, {"student": z(ALL, 3, 2)}),
        "HCL": Case(lambda m: losses.HCL(0.5, tau_plus=0.01, distributed=m), two),
        "InfoNCE": Case(lambda m: losses.InfoNCE(losses.LogitScale(0.1), distributed=m), two),
        "InfoNCE smoothed": Case(lambda m: losses.InfoNCE(0.1, label_smoothing=0.1, distributed=m), two),
        "InfoNCE grouped, smoothed": Case(
            lambda m: losses.InfoNCE(0.1, label_smoothing=0.1, distributed=m), two, {"group": GROUP}
        ),
        "InfoNCE soft targets": Case(lambda m: losses.InfoNCE(losses.LogitScale(0.1), distributed=m), two, soft),
        "ISogCLR": Case(
            lambda m: losses.ISogCLR(12, 0.3, gamma=0.6, bimodal=True, distributed=m), two, {"index": INDEX}
        ),
        "LocalMI": Case(lambda m: losses.LocalMI(0.1, distributed=m), (tokens[0], z(ALL, DIM)), {"mask": mask}),
        "Metrix": Case(lambda m: losses.Metrix(generator=seeded(), distributed=m), (z(ALL, DIM), TWICE), passes=1),
        "MixCo": Case(lambda m: losses.MixCo(distributed=m), two, mixture),
        "MLCD": Case(
            lambda m: losses.MLCD(9, DIM, sampled=0.5, generator=seeded(), distributed=m), (z(ALL, DIM), LABEL[:, None])
        ),
        "MoCHi": Case(lambda m: losses.MoCHi(DIM, 12, 0.2, **mixed, distributed=m), two, {"index": INDEX}),
        "MoCo": Case(lambda m: losses.MoCo(DIM, 12, 0.2, distributed=m), two, {"index": INDEX}),
        "ModX": Case(lambda m: losses.ModX(distributed=m), four),
        "ModX mean": Case(lambda m: losses.ModX(mean_kl=True, distributed=m), four),
        "MultiLabelSigmoid": Case(lambda m: losses.MultiLabelSigmoid(), labels),
        "MultiLabelSoftmax": Case(lambda m: losses.MultiLabelSoftmax(), labels),
        "MultiViewNTXent": Case(lambda m: losses.MultiViewNTXent(0.1, distributed=m), three),
        "MVDHEL": Case(lambda m: losses.MVDHEL(0.3, distributed=m), three),
        "MVInfoNCE": Case(lambda m: losses.MVInfoNCE(0.3, distributed=m), three),
        "MVInfoNCE per view": Case(lambda m: losses.MVInfoNCE(0.3, per_view=True, distributed=m), three),
        "Norton": Case(lambda m: losses.Norton(iterations=5, distributed=m), two),
        "NortonParagraph": Case(
            lambda m: losses.NortonParagraph(losses.LogitScale(0.1), block=3, distributed=m),
            (z(ALL, 3, DIM, seed=5), z(ALL, 3, DIM, seed=6)),
            {"frames": z(ALL, 3, 2, 4, seed=7), "words": z(ALL, 3, 4, 4, seed=8), "word_mask": spoken},
        ),
        "NortonParagraph without tokens": Case(
            lambda m: losses.NortonParagraph(block=3, distributed=m), (tokens[0], z(ALL, 3, DIM, seed=6))
        ),
        "NTXent": Case(lambda m: losses.NTXent(losses.LogitScale(0.1), distributed=m), two),
        "NTXent grouped": Case(lambda m: losses.NTXent(0.1, distributed=m), two, {"group": GROUP}),
        "PixPro": Case(lambda m: losses.PixPro(), pixpro(0)),
        "SepCLR": Case(lambda m: losses.SepCLR(distributed=m), four, {"target": TARGET}),
        "SigLIP": Case(lambda m: losses.SigLIP(distributed=m), two),
        "SigLIP grouped": Case(lambda m: losses.SigLIP(distributed=m), two, {"group": GROUP}),
        "SimLAP": Case(  # batch normalisation in evaluation: its statistics are each rank's own
            lambda m: losses.SimLAP(10, DIM, width=4, hidden=4, block=3, distributed=m).eval(),
            (z(ALL, DIM), LABEL),
            {"other": LABEL.flip(0)},
        ),
        "SimpleContrastive": Case(lambda m: losses.SimpleContrastive(distributed=m), two),
        "SlotCon": Case(
            lambda m: losses.SlotCon(DIM, 3, predictor=torch.nn.Identity(), distributed=m),
            tuple(z(ALL, DIM, 2, 2, seed=s) for s in range(4)),
        ),
        "SoftClip": Case(lambda m: losses.SoftClip(losses.LogitScale(0.1), distributed=m), two),
        "SoftContrastive": Case(lambda m: losses.SoftContrastive(distributed=m), two, {"label": LABEL}),
        "SoftContrastive texts": Case(
            lambda m: losses.SoftContrastive(distributed=m),
            two,
            {"label_embedding": By(lambda at: z(ALL, 3, seed=8)[at])},
        ),
        "SoftTopK": Case(lambda m: losses.SoftTopK(k=3), labels),
        "SogCLR": Case(lambda m: losses.SogCLR(12, 0.3, gamma=0.6, distributed=m), two, {"index": INDEX}),
        "SupCon": Case(lambda m: losses.SupCon(losses.LogitScale(0.1), distributed=m), two, {"label": LABEL}),
        "SupReMix": Case(lambda m: EvenMix(distributed=m), two, {"target": By(lambda at: order[at])}),
        "SwAV": Case(lambda m: losses.SwAV(DIM, 4, queue_size=12, distributed=m), three),
        "Symile": Case(lambda m: losses.Symile(generator=seeded(), distributed=m), three),
        "Symile all products": Case(lambda m: losses.Symile(negatives="n_squared", distributed=m), three),
        "TCL": Case(
            lambda m: losses.TCL(DIM, 12, distributed=m),
            four,
            {"image_tokens": z(ALL, 4, DIM, seed=6), "text_tokens": tokens[0], "text_mask": mask, "index": INDEX},
        ),
        "Uniformity": Case(lambda m: losses.Uniformity(distributed=m), views(1)),
        "VICReg": Case(lambda m: losses.VICReg(distributed=m), two),
        "WhitenedCSE": Case(lambda m: losses.WhitenedCSE(DIM, 2, generator=seeded(), distributed=m), two),
        "WMSE": Case(lambda m: losses.WMSE(distributed=m), two),
        "WMSE in groups": Case(lambda m: losses.WMSE(group_size=8, generator=seeded(), distributed=m), two),
    }


def outcome(
    case: Case, mode: str, at: slice, weight: float = 1.0
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Value; gradients of rows, and of what every rank holds (parameters among it); buffers. From the last call."""
    torch.manual_seed(0)
    loss = case.make(mode).double()
    for _ in range(case.passes):
        loss.zero_grad()
        rows, held = [], []

        def given(value, rows=rows, held=held):
            cut = local(value, at)
            if not (isinstance(cut, Tensor) and cut.is_floating_point()) or isinstance(value, By):
                return cut
            leaf = cut.detach().clone().requires_grad_()
            (held if isinstance(value, Held) else rows).append((value, leaf))
            return leaf

        value = weight * loss(*map(given, case.arguments), **{k: given(v) for k, v in case.keywords.items()})
        value.backward()
    # Some inputs get no gradient (MoCo detaches its keys).
    found = [(v, torch.zeros_like(t) if t.grad is None else t.grad) for v, t in rows]
    rows = [g.transpose(0, 1) if isinstance(v, Heads) else g for v, g in found]
    shared = [t.grad for _, t in held] + [p.grad for p in loss.parameters() if p.grad is not None]
    return value.detach(), rows, shared, [b.clone() for b in loss.buffers()]


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors; infinite where only one is."""
    if a.shape != b.shape or not torch.equal(a.isinf(), b.isinf()):
        return float("inf")
    return float((a - b).abs().nan_to_num(nan=0.0).max()) if a.numel() else 0.0


def main(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    errors = {}
    for (name, case), cut in product(cases().items(), (ROWS, ROWS + 1, ALL)):
        if cut != ROWS and name not in UNEVEN:
            continue
        here = slice(0, cut) if rank == 0 else slice(cut, ALL)
        value, rows, shared, buffers = outcome(case, "none", slice(0, ALL))
        for mode in ("gather", "ring"):
            mean, mine, own, state = outcome(case, mode, here)
            dist.all_reduce(mean)
            gaps = [gap(mean / WORLD, value)]
            gaps += [gap(g / WORLD, w[here]) for g, w in zip(mine, rows, strict=True)]
            for g, w in zip(own, shared, strict=True):
                dist.all_reduce(g)
                gaps.append(gap(g / WORLD, w))
            gaps += [gap(a, b) for a, b in zip(state, buffers, strict=True)]
            moved = max(float(g.abs().max()) for g in rows)
            errors[f"{name}, {mode}, {cut} + {ALL - cut} rows"] = max(gaps) if moved > 0 else float("inf")
    sys.stdout.write(json.dumps(errors) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
