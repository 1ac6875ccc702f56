"""Run by test_ranks.py, one process per rank: sharded losses against the single-process loss of the whole batch."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

import counterpoint.common.losses as losses
from counterpoint.common.kernels import Diagonal, Gibbs, Index, Mix, Pairs, SameLabel, Uniform

ALL, DIM = 8, 6
# How many of the rows each rank holds (as many as the others, fewer, none), and how they meet.
SHARES = {
    2: (((4, 4), "ring"), ((5, 3), "gather")),
    3: (((5, 1, 2), "auto"), ((5, 0, 3), "ring")),
}
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
    passes: int | None = None


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


class MixedAnchors(losses.Metrix):
    """The rarer kind of mixtures, which a seed may not draw."""

    def draw(self, like: Tensor) -> tuple[bool, float]:
        return False, 0.6


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
    """Every objective; the first word of a name is its class."""
    two, three, four = views(2), views(3), views(4)
    tokens = z(ALL, 3, DIM, seed=5), z(ALL, 2, DIM, seed=6)
    mask = torch.arange(3) < torch.tensor([3, 3, 2, 3, 1, 1, 2, 0])[:, None]
    levels = z(ALL, 3, DIM, seed=5), z(ALL, 4, DIM, seed=6)
    spoken = torch.arange(4) < torch.randint(1, 5, (ALL, 3, 1), generator=seeded())
    caption = torch.randint(0, 4, (ALL, 3), generator=seeded()) * mask
    perm = torch.tensor([1, 2, 0, 3, 4, 5, 7, 6])  # rows are mixed within a rank
    mixture = {"perm": By(lambda at: perm[at] - at.start), "mixing": By(lambda at: z(ALL, seed=4).sigmoid()[at])}
    labels = (z(ALL, DIM), Held(z(9, DIM, seed=1)), POSITIVES)
    soft = {"targets": By(targets)}
    mixed = {"hardest": 1, "mixed": 2, "mixed_with_query": 0}  # one candidate each: no chance is left
    # One object for all ways to meet: a changed setting is seen, though compiled code is at hand.
    compiled = torch.compile(losses.InfoNCE(losses.LogitScale(0.1)), backend="eager")
    order = torch.arange(ALL, dtype=torch.float64)[torch.argsort(INDEX)] // 2
    return {
        "ALBEFContrast": Case(lambda: losses.ALBEFContrast(DIM, 12), four, {"index": INDEX}),
        "ALBEFContrast without ids": Case(lambda: losses.ALBEFContrast(DIM, 12), four),
        "Alignment": Case(lambda: losses.Alignment(), two),
        "AMCL": Case(lambda: losses.AMCL(DIM, hardest=3), (Heads(z(2, ALL, DIM)), Heads(z(2, ALL, DIM, seed=1)))),
        "AMCLBarlow": Case(
            lambda: losses.AMCLBarlow(ALL, DIM, hidden=3), (Heads(z(2, ALL, DIM)), Heads(z(2, ALL, DIM, seed=1)))
        ),
        "AMCLMoCo": Case(
            lambda: losses.AMCLMoCo(DIM, 2, 12, hidden=3, hardest=3),
            (Heads(z(2, ALL, DIM)), Heads(z(2, ALL, DIM, seed=1))),
            {"index": INDEX},
        ),
        "AMCLSimSiam": Case(
            lambda: losses.AMCLSimSiam(DIM, hidden=3), tuple(Heads(z(2, ALL, DIM, seed=s)) for s in range(4))
        ),
        "BalancedSoftmax": Case(lambda: losses.BalancedSoftmax(torch.arange(1.0, 7.0)), (z(ALL, DIM), LABEL)),
        "BarlowTwins": Case(lambda: losses.BarlowTwins(), two),
        "BMC": Case(lambda: losses.BMC(), (z(ALL, 2), z(ALL, 2, seed=1))),
        "BNI": Case(lambda: losses.BNI(torch.zeros(2), torch.ones(2) / 2), (z(ALL), z(ALL, seed=1))),
        "CACR": Case(lambda: losses.CACR(), three),
        "CoCa": Case(lambda: losses.CoCa(), (*two, z(ALL, 3, 7), caption)),
        "CrossModalHCL": Case(lambda: losses.CrossModalHCL(0.5, tau_plus=0.01), two),
        "CrossUniformity": Case(lambda: losses.CrossUniformity(), two),
        "CUA": Case(lambda: losses.CUA(0.1), two, {"group": GROUP}),
        "CWCL": Case(lambda: losses.CWCL(losses.LogitScale(0.1)), two),
        "CWCL teacher": Case(lambda: losses.CWCL(0.1), two, {"teacher": By(lambda at: z(ALL, 3, seed=8)[at])}),
        "DCL": Case(lambda: losses.DCL(0.1), two),
        "DCLW": Case(lambda: losses.DCLW(0.1), two, {"group": GROUP}),
        "DecoupledSoftmax": Case(lambda: losses.DecoupledSoftmax(losses.LogitScale(0.1)), labels),
        "DHEL": Case(lambda: losses.DHEL(0.3), two, {"group": GROUP}),
        "FastCLIP": Case(lambda: losses.FastCLIP(12, 0.3, gamma=0.6), two, {"index": INDEX}),
        "GAI": Case(lambda: losses.GAI(torch.zeros(2), torch.ones(2), torch.ones(2) / 2), (z(ALL), z(ALL, seed=1))),
        "GRAM": Case(lambda: losses.GRAM(losses.LogitScale(0.1), block=3), three),
        "HardContrastive": Case(lambda: losses.HardContrastive(losses.LogitScale(0.3), keep=0.3), two),
        "HBI": Case(lambda: losses.HBI(DIM, losses.LogitScale(0.1), heads=2, planes=2, block=3), levels),
        "HBI transposed as released": Case(
            lambda: losses.HBI(DIM, 0.1, heads=2, planes=2, transposed="batch", ratios=(0.5,)), levels, {"x_mask": mask}
        ),
        "HCL": Case(lambda: losses.HCL(0.5, tau_plus=0.01), two),
        "InfoNCE": Case(lambda: losses.InfoNCE(losses.LogitScale(0.1)), two),
        "InfoNCE compiled": Case(lambda: compiled, two),
        "InfoNCE in tiles": Case(lambda: losses.InfoNCE(losses.LogitScale(0.1), backend="tiled"), two),
        "InfoNCE smoothed": Case(lambda: losses.InfoNCE(0.1, label_smoothing=0.1), two),
        "InfoNCE grouped, smoothed": Case(lambda: losses.InfoNCE(0.1, label_smoothing=0.1), two, {"group": GROUP}),
        "InfoNCE soft targets": Case(lambda: losses.InfoNCE(losses.LogitScale(0.1)), two, soft),
        "ISogCLR": Case(lambda: losses.ISogCLR(12, 0.3, gamma=0.6, bimodal=True), two, {"index": INDEX}),
        "LocalMI": Case(lambda: losses.LocalMI(0.1), (tokens[0], z(ALL, DIM)), {"mask": mask}),
        "M3CoL": Case(
            lambda: losses.M3CoL((DIM, DIM, DIM), 5, hidden=4),
            three,
            {
                "label": LABEL,
                "perms": By(lambda at: (perm[at] - at.start)[:, None].expand(-1, 3)),
                "mixings": By(lambda at: z(ALL, 3, seed=4).sigmoid()[at]),
            },
        ),
        "Metrix": Case(lambda: losses.Metrix(generator=seeded(), block=3), (z(ALL, DIM), LABEL), passes=1),
        "Metrix of anchors": Case(lambda: MixedAnchors(block=3), (z(ALL, DIM), LABEL)),
        "Metrix of multi-similarity": Case(
            lambda: losses.Metrix(base="multi-similarity", generator=seeded()), (z(ALL, DIM), TWICE), passes=1
        ),
        "MixCo": Case(lambda: losses.MixCo(), two, mixture),
        "MLCD": Case(lambda: losses.MLCD(9, DIM, sampled=0.5, generator=seeded()), (z(ALL, DIM), LABEL[:, None])),
        "MoCHi": Case(lambda: losses.MoCHi(DIM, 12, 0.2, **mixed), two, {"index": INDEX}),
        "MoCo": Case(lambda: losses.MoCo(DIM, 12, 0.2), two, {"index": INDEX}),
        "ModX": Case(lambda: losses.ModX(), four),
        "ModX mean": Case(lambda: losses.ModX(mean_kl=True), four),
        "MultiLabelSigmoid": Case(lambda: losses.MultiLabelSigmoid(), labels),
        "MultiLabelSoftmax": Case(lambda: losses.MultiLabelSoftmax(), labels),
        "MultiViewNTXent": Case(lambda: losses.MultiViewNTXent(0.1), three),
        "MVDHEL": Case(lambda: losses.MVDHEL(0.3), three),
        "MVInfoNCE": Case(lambda: losses.MVInfoNCE(0.3), three),
        "MVInfoNCE per view": Case(lambda: losses.MVInfoNCE(0.3, per_view=True), three),
        "Norton": Case(lambda: losses.Norton(iterations=5), two),
        "NortonParagraph": Case(
            lambda: losses.NortonParagraph(losses.LogitScale(0.1), block=3),
            (z(ALL, 3, DIM, seed=5), z(ALL, 3, DIM, seed=6)),
            {"frames": z(ALL, 3, 2, 4, seed=7), "words": z(ALL, 3, 4, 4, seed=8), "word_mask": spoken},
        ),
        "NortonParagraph without tokens": Case(
            lambda: losses.NortonParagraph(block=3), (tokens[0], z(ALL, 3, DIM, seed=6))
        ),
        "NTXent": Case(lambda: losses.NTXent(losses.LogitScale(0.1)), two),
        "NTXent in tiles": Case(lambda: losses.NTXent(losses.LogitScale(0.1), backend="tiled"), two),
        "NTXent grouped": Case(lambda: losses.NTXent(0.1), two, {"group": GROUP}),
        "PixPro": Case(lambda: losses.PixPro(), pixpro(0)),
        "SepCLR": Case(lambda: losses.SepCLR(), four, {"target": TARGET}),
        "SigLIP": Case(lambda: losses.SigLIP(), two),
        "SigLIP grouped": Case(lambda: losses.SigLIP(), two, {"group": GROUP}),
        "SimLAP": Case(  # batch normalisation in evaluation: its statistics are each rank's own
            lambda: losses.SimLAP(10, DIM, width=4, hidden=4, block=3).eval(),
            (z(ALL, DIM), LABEL),
            {"other": LABEL.flip(0)},
        ),
        "SimpleContrastive": Case(lambda: losses.SimpleContrastive(), two),
        "SlotCon": Case(
            lambda: losses.SlotCon(DIM, 3, predictor=torch.nn.Identity()),
            tuple(z(ALL, DIM, 2, 2, seed=s) for s in range(4)),
        ),
        "SoftClip": Case(lambda: losses.SoftClip(losses.LogitScale(0.1)), two),
        "SoftContrastive": Case(lambda: losses.SoftContrastive(), two, {"label": LABEL}),
        "SoftContrastive texts": Case(
            lambda: losses.SoftContrastive(),
            two,
            {"label_embedding": By(lambda at: z(ALL, 3, seed=8)[at])},
        ),
        "SoftTopK": Case(lambda: losses.SoftTopK(k=3), labels),
        "SogCLR": Case(lambda: losses.SogCLR(12, 0.3, gamma=0.6), two, {"index": INDEX}),
        "SupCon": Case(lambda: losses.SupCon(losses.LogitScale(0.1)), two, {"label": LABEL}),
        "SupReMix": Case(lambda: EvenMix(), two, {"target": By(lambda at: order[at])}),
        "SwAV": Case(lambda: losses.SwAV(DIM, 4, queue_size=12), three),
        "Symile": Case(lambda: losses.Symile(generator=seeded()), three),
        "Symile all products": Case(lambda: losses.Symile(negatives="n_squared"), three),
        "TCL": Case(
            lambda: losses.TCL(DIM, 12),
            four,
            {"image_tokens": z(ALL, 4, DIM, seed=6), "text_tokens": tokens[0], "text_mask": mask, "index": INDEX},
        ),
        "TripletHinge": Case(lambda: losses.TripletHinge(both=True, block=3), two),
        "TripletHinge with groups": Case(lambda: losses.TripletHinge(), two, {"group": GROUP}),
        "Uniformity": Case(lambda: losses.Uniformity(), views(1)),
        "VICReg": Case(lambda: losses.VICReg(), two),
        "WhitenedCSE": Case(lambda: losses.WhitenedCSE(DIM, 2, generator=seeded()), two),
        "WMSE": Case(lambda: losses.WMSE(), two),
        "WMSE in groups": Case(lambda: losses.WMSE(group_size=8, generator=seeded()), two),
    }


def outcome(case: Case, mode: str, at: slice) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Value; gradients of rows, and of what every rank holds (parameters among it); buffers. From the last call."""
    torch.manual_seed(0)
    loss = case.make().double()
    for _ in range(case.passes or (2 if [*loss.buffers()] else 1)):  # states then hold something
        loss.zero_grad()
        rows, held = [], []

        def given(value, rows=rows, held=held):
            cut = local(value, at)
            if not (isinstance(cut, Tensor) and cut.is_floating_point()) or isinstance(value, By):
                return cut
            leaf = cut.detach().clone().requires_grad_()
            (held if isinstance(value, Held) else rows).append((value, leaf))
            return leaf

        arguments, keywords = [*map(given, case.arguments)], {k: given(v) for k, v in case.keywords.items()}
        with losses.engine_settings(distributed=mode), torch.autocast("cpu", enabled=mode != "none"):
            value = loss(*arguments, **keywords)
        value.backward()  # outside: it goes by what the forward pass found
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


def compare(case: Case, whole: tuple, mode: str, here: slice, world: int) -> float:
    """The largest difference between the ranks' averages and the single process, in all that a training step uses."""
    value, rows, shared, buffers = whole
    mean, mine, own, state = outcome(case, mode, here)
    dist.all_reduce(mean)
    gaps = [gap(mean / world, value)]
    gaps += [gap(g / world, w[here]) for g, w in zip(mine, rows, strict=True)]
    for g, w in zip(own, shared, strict=True):
        dist.all_reduce(g)
        gaps.append(gap(g / world, w))
    gaps += [gap(a, b) for a, b in zip(state, buffers, strict=True)]
    moved = max(float(g.abs().max()) for g in rows)
    return max(gaps) if moved > 0 else float("inf")


def differences(rank: int, world: int, store: str) -> dict[str, float]:
    """Every case on the ranks of one process group."""
    patience = timedelta(seconds=600)  # ranks that wait for one another for ever fail instead
    dist.init_process_group("gloo", init_method=f"file://{store}{world}", rank=rank, world_size=world, timeout=patience)
    errors = {}
    for name, case in cases().items():
        whole = outcome(case, "none", slice(0, ALL))
        for share, mode in SHARES[world]:
            here = slice(sum(share[:rank]), sum(share[: rank + 1]))
            errors[f"{name}, {mode}, {' + '.join(map(str, share))} rows"] = compare(case, whole, mode, here, world)
    dist.destroy_process_group()
    return errors


def main(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    found = [differences(rank, world, store) for world in SHARES if rank < world]
    sys.stdout.write(json.dumps({name: error for errors in found for name, error in errors.items()}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
