"""What every objective promises, whatever its equation: order, empty batches, precision, registry, README."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import torch

import counterpoint.common.losses as losses
from counterpoint.common.kernels import Pairs
from counterpoint.common.losses.cards import objectives_table

DIM = 6


def batch(n, *shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, *(s if isinstance(s, tuple) else (s,)), generator=generator, dtype=dtype) for s in shapes
    )


def views(count):
    return lambda n: (batch(n, *[DIM] * count), {})


def with_keyword(count, **keywords):
    return lambda n: (batch(n, *[DIM] * count), {k: f(n) for k, f in keywords.items()})


def index(n):
    return torch.arange(n)


def labels(n):
    return torch.arange(n) // 2


def seeded():
    return torch.Generator().manual_seed(0)


def pairs(n):
    return (*batch(n, DIM), *batch(9, DIM, seed=1), Pairs(torch.arange(n + 1), torch.arange(n) % 9)), {}


def pixpro(n):
    maps = batch(n, *[(4, 2, 2)] * 4)
    spots = batch(n, (2, 2, 2), (2, 2, 2), seed=1)
    return (*maps, *spots, torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)), {}


# name: (objective, arguments for a batch of n rows). "random" ones draw per call, so that order matters.
CASES = {
    "ALBEFContrast": (lambda: losses.ALBEFContrast(DIM, 4), with_keyword(4, index=index)),
    "Alignment": (losses.Alignment, views(2)),
    "AMCL": (lambda: losses.AMCL(DIM), lambda n: (tuple(z[None] for z in batch(n, DIM, DIM)), {})),
    "AMCLBarlow": (
        lambda: losses.AMCLBarlow(8, DIM, hidden=4),
        lambda n: (tuple(z[None] for z in batch(n, DIM, DIM)), {}),
    ),
    "AMCLMoCo": (
        lambda: losses.AMCLMoCo(DIM, 1, 8, hidden=4),
        lambda n: (tuple(z[None] for z in batch(n, DIM, DIM)), {}),
    ),
    "AMCLSimSiam": (
        lambda: losses.AMCLSimSiam(DIM, hidden=4),
        lambda n: (tuple(z[None] for z in batch(n, *[DIM] * 4)), {}),
    ),
    "BalancedSoftmax": (
        lambda: losses.BalancedSoftmax(torch.arange(1.0, 7.0)),
        lambda n: ((*batch(n, DIM), torch.arange(n) % 6), {}),
    ),
    "BarlowTwins": (losses.BarlowTwins, views(2)),
    "BMC": (losses.BMC, lambda n: (batch(n, (), ()), {})),
    "BNI": (lambda: losses.BNI(torch.zeros(2), torch.ones(2) / 2), lambda n: (batch(n, (), ()), {})),
    "CACR": (losses.CACR, views(3)),
    "CoCa": (
        losses.CoCa,
        lambda n: ((*batch(n, DIM, DIM, (3, 7)), torch.randint(1, 7, (n, 3), generator=seeded())), {}),
    ),
    "CrossModalHCL": (losses.CrossModalHCL, views(2)),
    "CrossUniformity": (losses.CrossUniformity, views(2)),
    "CUA": (losses.CUA, views(2)),
    "CWCL": (losses.CWCL, views(2)),
    "DCL": (losses.DCL, views(2)),
    "DCLW": (losses.DCLW, views(2)),
    "DecoupledSoftmax": (losses.DecoupledSoftmax, pairs),
    "DHEL": (losses.DHEL, views(2)),
    "FastCLIP": (lambda: losses.FastCLIP(20), with_keyword(2, index=index)),
    "GAI": (lambda: losses.GAI(torch.zeros(2), torch.ones(2), torch.ones(2) / 2), lambda n: (batch(n, (), ()), {})),
    "GRAM": (lambda: losses.GRAM(block=3), views(3)),
    "HardContrastive": (losses.HardContrastive, views(2)),
    "HBI": (
        lambda: losses.HBI(DIM, 0.1, heads=2, planes=2, block=3),
        lambda n: (batch(n, (5, DIM), (4, DIM)), {}),
    ),
    "HCL": (losses.HCL, views(2)),
    "InfoNCE": (losses.InfoNCE, views(2)),
    "ISogCLR": (lambda: losses.ISogCLR(20), with_keyword(2, index=index)),
    "LocalMI": (losses.LocalMI, lambda n: (batch(n, (3, DIM), DIM), {})),
    "M3CoL": (
        lambda: losses.M3CoL((DIM, DIM), 3, hidden=4, generator=seeded()),
        with_keyword(2, label=lambda n: torch.arange(n) % 3),
    ),
    "Metrix": (lambda: losses.Metrix(generator=seeded()), lambda n: ((*batch(n, DIM), labels(n)), {})),
    "MixCo": (
        losses.MixCo,
        with_keyword(2, perm=lambda n: torch.arange(n).roll(1), mixing=lambda n: torch.full((n,), 0.5)),
    ),
    "MLCD": (lambda: losses.MLCD(9, DIM, sampled=1.0), lambda n: ((*batch(n, DIM), torch.arange(n)[:, None] % 9), {})),
    "MoCHi": (lambda: losses.MoCHi(DIM, 8, hardest=2, mixed=2, mixed_with_query=1, generator=seeded()), views(2)),
    "MoCo": (lambda: losses.MoCo(DIM, 8), views(2)),
    "ModX": (losses.ModX, views(4)),
    "MultiLabelSigmoid": (losses.MultiLabelSigmoid, pairs),
    "MultiLabelSoftmax": (losses.MultiLabelSoftmax, pairs),
    "MultiViewNTXent": (losses.MultiViewNTXent, views(3)),
    "MVDHEL": (losses.MVDHEL, views(3)),
    "MVInfoNCE": (losses.MVInfoNCE, views(3)),
    "Norton": (lambda: losses.Norton(iterations=5), views(2)),
    "NortonParagraph": (
        losses.NortonParagraph,
        lambda n: (
            batch(n, (3, DIM), (3, DIM)),
            dict(zip(("frames", "words"), batch(n, (3, 2, 4), (3, 4, 4), seed=1), strict=True)),
        ),
    ),
    "NTXent": (losses.NTXent, views(2)),
    "PixPro": (losses.PixPro, pixpro),
    "SepCLR": (losses.SepCLR, with_keyword(4, target=lambda n: torch.arange(n) % 2 == 0)),
    "SigLIP": (losses.SigLIP, views(2)),
    "SimLAP": (
        lambda: losses.SimLAP(10, DIM, width=4, hidden=4),
        lambda n: ((*batch(n, DIM), labels(n)), {"other": labels(n).flip(0)}),
    ),
    "SimpleContrastive": (losses.SimpleContrastive, views(2)),
    "SlotCon": (
        lambda: losses.SlotCon(DIM, 3, predictor=torch.nn.Identity()),
        lambda n: (batch(n, *[(DIM, 2, 2)] * 4), {}),
    ),
    "SoftClip": (losses.SoftClip, views(2)),
    "SoftContrastive": (losses.SoftContrastive, with_keyword(2, label=labels)),
    "SoftTopK": (lambda: losses.SoftTopK(k=3), pairs),
    "SogCLR": (lambda: losses.SogCLR(20), with_keyword(2, index=index)),
    "SupCon": (losses.SupCon, with_keyword(2, label=labels)),
    "SupReMix": (
        lambda: losses.SupReMix(generator=seeded()),
        with_keyword(2, target=lambda n: torch.arange(n, dtype=torch.float64)),
    ),
    "SwAV": (lambda: losses.SwAV(DIM, 4), views(3)),
    "Symile": (lambda: losses.Symile(0.1, negatives="n_squared"), views(3)),
    "TCL": (lambda: losses.TCL(DIM, 4), with_keyword(4, index=index)),
    "TripletHinge": (losses.TripletHinge, views(2)),
    "Uniformity": (losses.Uniformity, views(1)),
    "VICReg": (losses.VICReg, views(2)),
    "WhitenedCSE": (lambda: losses.WhitenedCSE(DIM, 2, generator=seeded()), views(2)),
    "WMSE": (losses.WMSE, views(2)),
}
RANDOM = {"M3CoL", "Metrix", "MoCHi", "SupReMix", "WhitenedCSE"}
# Where fewer than `dim` rows are an error by definition, and what it says.
NEEDS_ROWS = {"WMSE": "sub-batches", "AMCLBarlow": "batches of 8"}
# The order of the rows is part of these.
ORDERED = {"AMCLBarlow"}


def build(name, dtype=torch.float64):
    torch.manual_seed(0)
    return CASES[name][0]().to(dtype)


def reorder(value, order):
    if isinstance(value, Pairs):
        rows = torch.repeat_interleave(torch.arange(len(value.ptr) - 1), value.ptr.diff())
        back = torch.argsort(order)
        return Pairs.from_rows(back[rows], value.col, len(order))
    return value[order] if len(value) == len(order) else value


def test_every_objective_is_registered_exported_and_tested():
    entries = losses.objectives()
    assert {e.name for e in entries} == set(CASES)
    for entry in entries:
        assert getattr(losses, entry.name).__module__ == entry.module
        assert all((entry.summary, entry.paper, entry.needs, entry.engine, entry.checked)), entry.name
        assert ">>>" in (getattr(losses, entry.name).__doc__ or ""), f"{entry.name} has no example"


@pytest.mark.parametrize("name", sorted(CASES))
def test_docstrings_give_equation_arguments_errors_and_source(name):
    objective = getattr(losses, name)
    text, code = inspect.getdoc(objective), inspect.getsource(objective)
    assert re.search(r"^    \S.* = ", text, re.MULTILINE) or "Equations as" in text
    assert "Source" in text
    everywhere = {"self", "engine", "generator"}
    assert [
        a
        for a in inspect.signature(objective.__init__).parameters
        if a not in everywhere | set(re.findall(r"\w+", text))
    ] == []
    assert ("raise ValueError" in code) <= ("aises" in text)


def test_the_readme_table_is_the_registry():
    readme = (Path(losses.__file__).parent / "README.md").read_text()
    assert objectives_table() in readme


@pytest.mark.parametrize("name", sorted(set(CASES) - RANDOM - ORDERED))
def test_the_order_of_the_batch_does_not_matter(name):
    arguments, keywords = CASES[name][1](8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    if name == "MixCo":
        keywords["perm"] = torch.arange(8).roll(1)
        moved = {"perm": torch.argsort(order)[keywords["perm"][order]], "mixing": keywords["mixing"]}
    else:
        moved = {k: v[order] for k, v in keywords.items()}
    if name.startswith("AMCL"):
        shuffled = tuple(z[:, order] for z in arguments)
    elif name in ("DecoupledSoftmax", "MultiLabelSigmoid", "MultiLabelSoftmax", "SoftTopK"):
        shuffled = (arguments[0][order], arguments[1], reorder(arguments[2], order))
    else:
        shuffled = tuple(reorder(z, order) for z in arguments)
    torch.testing.assert_close(
        build(name)(*shuffled, **moved), build(name)(*arguments, **keywords), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("name", sorted(CASES))
def test_empty_and_single_row_batches_are_finite(name, rows):
    arguments, keywords = CASES[name][1](rows)
    arguments = tuple(z.requires_grad_() if torch.is_tensor(z) and z.is_floating_point() else z for z in arguments)
    loss = build(name)
    if name in NEEDS_ROWS and rows:
        with pytest.raises(ValueError, match=NEEDS_ROWS[name]):
            loss(*arguments, **keywords)
        return
    value = loss(*arguments, **keywords)
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    grads = [z.grad for z in arguments if torch.is_tensor(z) and z.grad is not None]
    assert grads
    assert all(torch.isfinite(g).all() for g in grads)
    if rows == 0 and name != "FastCLIP":  # its rho T stays
        assert value.item() == 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_half_precision_under_autocast_computes_in_float32(name):
    arguments, keywords = CASES[name][1](8)
    half = tuple(z.bfloat16() if torch.is_tensor(z) and z.is_floating_point() else z for z in arguments)
    single = tuple(z.float() if torch.is_tensor(z) and z.is_floating_point() else z for z in half)
    keywords = {k: v.float() if v.is_floating_point() else v for k, v in keywords.items()}

    def outcome(arguments, autocast):
        loss = build(name, torch.float32)
        leaves = [z.detach().requires_grad_() if torch.is_tensor(z) and z.is_floating_point() else z for z in arguments]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = loss(*leaves, **keywords)
        value.backward()
        return [value.detach(), *(z.grad.float() for z in leaves if torch.is_tensor(z) and z.grad is not None)]

    value, *grads = outcome(half, True)
    inside, outside = outcome(single, True), outcome(single, False)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, outside[0], rtol=1e-5, atol=1e-5)
    for grad, exact in zip(grads, outside[1:], strict=True):  # a gradient of bfloat16 rows is rounded to bfloat16
        torch.testing.assert_close(grad, exact, rtol=2**-7, atol=2**-8 * float(exact.abs().max()))
    for one, other in zip(inside, outside, strict=True):  # float32 rows: autocast changes nothing at all
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


# Constructor arguments that are seen in something else than their name: a tensor's shape, a layer, a queue.
SEEN_IN = {
    "queue_size": "size=", "n_classes": "centres=[9,", "counts": "log_counts=[6]", "weights": "log_weights=[2]",
    "learnable": "noise=", "learnable_bias": "bias=", "n_samples": "SampleState(n_samples=20",
}  # fmt: skip
SEEN_OTHERWISE = {
    "SimLAP": {
        "n_classes": "Embedding(10, 4)",
        "dim": "out_features=6",
        "width": "Embedding(10, 4)",
        "hidden": "Linear",
    },
    "AMCL": {"hidden": "Linear(in_features=6"},
    "AMCLBarlow": {"hidden": "out_features=4"},
    "AMCLMoCo": {"hidden": "out_features=4"},
    "AMCLSimSiam": {"hidden": "out_features=4"},
    "HBI": {"teacher": "exact="},  # computed unless a network is given
    "M3CoL": {"n_classes": "n_classes=3"},
    "MLCD": {"dim": "centres=[9, 6]"},
    "SlotCon": {"dim": "prototypes=[3, 6]", "predictor": "Identity", "hidden": "Identity"},
    "SwAV": {"dim": "prototypes=[4, 6]", "queue_size": "use_queue=False"},
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_setting_is_printed(name):
    """A log that holds `repr(loss)` says with what it was trained."""
    loss = build(name)
    shown, seen = repr(loss), {**SEEN_IN, **SEEN_OTHERWISE.get(name, {})}
    left_off = {"self", "engine", "generator", "decay_epochs"}  # no numbers, or off
    for argument in set(inspect.signature(type(loss).__init__).parameters) - left_off:
        assert seen.get(argument, f"{argument}=") in shown, f"{argument} is missing in {shown}"
    if "temperature" in inspect.signature(type(loss).__init__).parameters:
        own = getattr(loss, "logit_scale", getattr(getattr(loss, "contrast", None), "logit_scale", loss))
        assert re.search(rf"temperature={own.temperature:.4g}\b", shown)


@pytest.mark.parametrize("name", sorted(CASES))
def test_objectives_print_copy_and_restore(name):
    loss = build(name)
    assert name in repr(loss)
    arguments, keywords = CASES[name][1](8)
    if name not in RANDOM:
        loss(*arguments, **keywords)  # queues and states now hold something
    again = build(name)
    again.load_state_dict(copy.deepcopy(loss.state_dict()))
    torch.testing.assert_close(again(*arguments, **keywords), loss(*arguments, **keywords))


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(CASES) - {"Metrix"}))  # Metrix draws on the device itself
def test_a_gpu_gives_what_the_cpu_gives(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")

    def move(value):
        if isinstance(value, Pairs):
            return Pairs(value.ptr.cuda(), value.col.cuda())
        return value.cuda() if torch.is_tensor(value) else value

    arguments, keywords = CASES[name][1](8)
    there = build(name).cuda()(*map(move, arguments), **{k: move(v) for k, v in keywords.items()})
    torch.testing.assert_close(there.cpu(), build(name)(*arguments, **keywords))


SEPARABLE = ["Alignment", "BalancedSoftmax", "BNI", "DecoupledSoftmax", "GAI", "MLCD", "MultiLabelSigmoid"]


@pytest.mark.parametrize("name", [*SEPARABLE, "MultiLabelSoftmax", "PixPro", "SoftTopK"])
def test_halves_of_a_batch_average_to_the_whole(name):
    """Objectives whose rows do not meet: the mean over rows makes gradient accumulation over equal parts exact."""
    arguments, keywords = CASES[name][1](8)
    loss = build(name)

    def part(rows):
        if isinstance(arguments[-1], Pairs):
            picked = Pairs(torch.arange(len(rows) + 1), arguments[2].col[rows])
            return loss(arguments[0][rows], arguments[1], picked)
        return loss(*(z[rows] for z in arguments), **keywords)

    halves = (part(torch.arange(4)) + part(torch.arange(4, 8))) / 2
    torch.testing.assert_close(halves, part(torch.arange(8)))


def test_repeating_the_batch_does_not_change_the_size_of_the_gradient():
    """Means over rows: twice the rows (with the negatives of a fixed queue), the same gradient on the encoder."""
    z, k = batch(4, DIM, DIM)
    weight = torch.eye(DIM, dtype=torch.float64, requires_grad=True)
    loss = losses.MoCo(DIM, 8).double().eval()
    loss.queue.push(batch(8, DIM, seed=3)[0])
    (once,) = torch.autograd.grad(loss(z @ weight, k), weight)
    (twice,) = torch.autograd.grad(loss((z @ weight).repeat(2, 1), k.repeat(2, 1)), weight)
    torch.testing.assert_close(once, twice)


def test_a_distributed_mode_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="distributed"):
        losses.InfoNCE(distributed="ddp")
