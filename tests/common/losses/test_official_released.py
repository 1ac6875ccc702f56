"""Objectives against released training code, frozen: value, gradients and states to 1e-8 in float64."""

import json
import math
from pathlib import Path

import pytest
import torch

from counterpoint.common.kernels import Pairs
from counterpoint.common.losses import (
    AMCL,
    BMC,
    CUA,
    HBI,
    AMCLBarlow,
    AMCLMoCo,
    AMCLSimSiam,
    CrossUniformity,
    FastCLIP,
    InteractionNetwork,
    LogitScale,
    M3CoL,
    Metrix,
    MoCo,
    SimLAP,
    SoftTopK,
    SupReMix,
    WhitenedCSE,
)

HELD = json.loads((Path(__file__).parent / "oracles" / "released_losses.json").read_text())


def tensor(value):
    found = torch.tensor(value)
    return torch.tensor(value, dtype=torch.float64) if found.is_floating_point() else found


def same(found, wanted):
    torch.testing.assert_close(found.detach(), tensor(wanted), rtol=1e-9, atol=1e-8)


class Call:
    """One frozen call: `self[name]` is an input, a leaf where the official call gave it a gradient."""

    def __init__(self, name):
        self.held, self.params = HELD[name], HELD[name]["params"]
        self.inputs = {k: tensor(v) for k, v in self.held["inputs"].items()}
        for key in self.held["gradients"]:
            if key in self.inputs:
                self.inputs[key].requires_grad_()

    def __getitem__(self, key):
        return self.inputs[key]

    def fill(self, *parameters_and_keys):
        for parameter, key in parameters_and_keys:
            with torch.no_grad():
                parameter.copy_(self.inputs[key])

    def check(self, value, **gradients):
        """Value and gradients; `gradients` are those of tensors of ours that stand for an input."""
        assert value.item() == pytest.approx(self.held["value"], rel=0, abs=1e-8)
        value.backward()
        found = {k: self.inputs[k].grad for k in self.held["gradients"] if k not in gradients}
        found |= {k: parameter.grad for k, parameter in gradients.items()}
        assert set(found) == set(self.held["gradients"])
        for key, grad in found.items():
            same(grad, self.held["gradients"][key])


def temperatures(call, loss):
    """The pair-temperature network with the frozen weights, by the names of the fixture."""
    keys = {"weight1": 0, "bias1": 0, "weight2": 2, "bias2": 2}
    named = {k: getattr(loss.phi[i], k[:-1]) for k, i in keys.items()}
    call.fill(*((p, k) for k, p in named.items()))
    return named


def headed(value):
    return value.transpose(0, 1)


@pytest.mark.parametrize("name", ["amcl_simclr", "amcl_simclr_all"])
def test_amcl(name):
    call = Call(name)
    loss = AMCL(4, hidden=3, beta=0.01, hardest=call.params["topk"], bounds=(0.05, 2.0)).double()
    named = temperatures(call, loss)
    call.check(loss(headed(call["z1"]), headed(call["z2"])), **named)


def test_amcl_moco():
    call = Call("amcl_moco")
    loss = AMCLMoCo(4, 2, 6, hidden=3, beta=0.01, hardest=3, bounds=(0.05, 2.0)).double()
    loss.queue.push(call["queue"].permute(2, 0, 1).flatten(1))
    named = temperatures(call, loss)
    call.check(loss(headed(call["query"]), headed(call["key"])), **named)


def test_amcl_simsiam():
    call = Call("amcl_simsiam")
    loss = AMCLSimSiam(4, hidden=3, beta=0.01, bounds=(0.05, 2.0)).double()
    named = temperatures(call, loss)
    call.check(loss(*(headed(call[k]) for k in ("p1", "p2", "z1", "z2"))), **named)


def test_amcl_barlow():
    call = Call("amcl_barlow")
    loss = AMCLBarlow(6, 4, hidden=3, beta=0.01, lam=0.005, bounds=(0.05, 2.0)).double()
    named = temperatures(call, loss)
    call.check(loss(headed(call["z1"]), headed(call["z2"])), **named)


@pytest.mark.parametrize("name", ["simlap", "simlap_distinct", "simlap_apart"])
def test_simlap(name):
    call = Call(name)
    loss = SimLAP(4, 4, width=3, hidden=5, fuse=call.params["fuse"], block=4).double()
    named = {"classes": loss.classes.weight, "weight1": loss.gate[2].weight, "bias1": loss.gate[2].bias}
    named |= {"weight2": loss.gate[5].weight, "bias2": loss.gate[5].bias}
    call.fill(*((p, k) for k, p in named.items()))
    call.check(loss(call["z"], call["label"], other=call["other"]), **named)


def test_cua():
    call = Call("cua")
    call.check(CUA(0.07)(call["x"], call["y"]))


def test_cross_uniformity():
    call = Call("cross_uniformity")
    call.check(CrossUniformity()(call["x"], call["y"]))


@pytest.mark.parametrize("name", ["metrix_positive", "metrix_positive_near", "metrix_anchor"])
@pytest.mark.parametrize("block", [2, 64])
def test_metrix(name, block, monkeypatch):
    call = Call(name)
    loss = Metrix(block=block)
    monkeypatch.setattr(loss, "draw", lambda like: (call.params["kind"] == 0, call.params["lam"]))
    value = loss(call["z"], call["label"])
    same(loss.monitors["clean"], call.held["clean"])
    same(loss.monitors["mixed"], call.held["mixed"])
    call.check(value)


def test_whitened_cse():
    call = Call("whitenedcse")
    generator = torch.Generator().manual_seed(5)
    loss = WhitenedCSE(6, 2, 0.05, eps=0.0, detach=True, generator=generator).double()
    orders = [torch.randperm(6, generator=torch.Generator().manual_seed(5)) for _ in range(1)]
    assert torch.equal(orders[0], call["orders"][0])  # the released permutations are drawn in this order
    named = {"weight": loss.head[0].weight, "bias": loss.head[0].bias}
    call.fill(*((p, k) for k, p in named.items()))
    call.check(loss(call["h1"], call["h2"], call["h3"]), **named)


@pytest.mark.parametrize("name", ["bmc", "bmc_several"])
def test_bmc(name):
    call = Call(name)
    loss = BMC(call.params["noise"]).double()
    loss.noise.data.fill_(call.params["noise"])
    call.check(loss(call["prediction"], call["target"]), noise=loss.noise)


def test_supremix(monkeypatch):
    call = Call("supremix")
    loss = SupReMix(0.3, window=3.0, separate_maxima=True)
    monkeypatch.setattr(loss, "draw", lambda rows, like: call["mixing"])
    call.check(loss(call["x"], call["y"], target=call["target"]))


@pytest.mark.parametrize("name", ["fastclip", "fastclip_first"])
def test_fastclip(name):
    call = Call(name)
    scale = LogitScale(0.2).double()
    scale.log_scale.data.fill_(-math.log(0.2))
    loss = FastCLIP(8, scale, rho=8.0, gamma=call.params["gamma"]).double()
    loss.state.log_u_a.copy_(call["u_im"].log())
    loss.state.log_u_b.copy_(call["u_tt"].log())
    value = loss(call["x"], call["y"], index=call["index"])
    scale.log_scale.register_hook(lambda grad: grad / 5.0)  # of exp(log_scale), the official parameter
    call.check(value, logit_scale=scale.log_scale)
    same(loss.state.log_u_a.exp(), call.held["u_im_after"])
    same(loss.state.log_u_b.exp(), call.held["u_tt_after"])


def test_soft_topk():
    call = Call("soft_topk")
    listed = call.params["positives"]
    ptr = torch.tensor([0] + [len(p) for p in listed]).cumsum(0)
    pairs = Pairs(ptr, torch.tensor([c for p in listed for c in p]))
    call.check(SoftTopK(k=3, temperature=0.2)(call["x"], call["y"], pairs))


def test_moco():
    call = Call("moco")
    loss = MoCo(4, 6, 0.07).double()
    loss.queue.push(call["queue"])
    call.check(loss(call["query"], call["key"]))
    same(loss.queue.keys, call.held["queue_after"])


@pytest.mark.parametrize(("name", "progress"), [("m3col_mixing", 0.3), ("m3col_soft", 0.4)])
def test_m3col(name, progress):
    call = Call(name)
    loss = M3CoL((4, 4), 3, hidden=5, lam=0.1, alias=True).double()
    loss.set_progress(progress)
    heads = {"text_head": loss.heads[0], "image_head": loss.heads[1], "fusion": loss.fusion}
    for key, head in heads.items():
        call.fill(*((p, f"{key}_{i}") for i, p in enumerate(head.parameters())))
    draws = {k: call[k].T for k in ("perms", "mixings")}
    value = loss(call["text"], call["image"], label=call["label"], **draws)
    call.check(value, **{key: head[-1].weight for key, head in heads.items()})


def waves(phase, *parameters):
    """The frozen rule of weights: parameter i is 0.3 sin(0.7 n + phase + i), plus 1 where it scales a norm."""
    for place, parameter, one in parameters:
        count = torch.arange(parameter.numel(), dtype=torch.float64)
        with torch.no_grad():
            parameter.copy_(0.3 * torch.sin(0.7 * count + phase + place).view_as(parameter) + one)


def fill_hbi(loss, phases):
    def network(module, phase):  # the official module holds an unused batch norm at places 5 and 6
        attention = [(0, module.query, 0), (1, module.key, 0), (2, module.value, 0)]
        waves(phase, *attention, (3, module.first.weight, 0), (4, module.first.bias, 0))
        waves(phase, (7, module.last.weight, 0), (8, module.last.bias, 0))

    network(loss.teacher, phases["teacher"])
    for i, level in enumerate(loss.levels):
        network(level.student, phases[f"s{i}"])
        for side, weights in (("t", level.x_weight), ("v", level.y_weight)):
            waves(phases[f"{side}w{i}"], *((n, p, 0) for n, p in enumerate(weights.parameters())))
    for side, merges in (("t", loss.x_merge), ("v", loss.y_merge)):
        for i, merge in enumerate(merges, 1):
            norm = [(1, merge.norm.weight, 1), (2, merge.norm.bias, 0)]
            waves(phases[f"{side}m{i}"], (0, merge.conv.weight, 0), *norm)
            waves(phases[f"{side}m{i}"], (3, merge.score.weight, 0), (4, merge.score.bias, 0))
            rest = [merge.query, merge.key_value, merge.out]
            pairs = [(n, p, 0) for n, p in enumerate((p for layer in rest for p in layer.parameters()), 2)]
            waves(phases[f"{side}b{i}"], (0, merge.before.weight, 1), (1, merge.before.bias, 0), *pairs)


@pytest.mark.parametrize("name", ["hbi", "hbi_masked"])
def test_hbi(name):
    call = Call(name)
    scale = LogitScale(0.1).double()
    with torch.no_grad():
        scale.log_scale.copy_(call["logit_scale"])
    sizes = {"heads": 2, "planes": 4, "neighbours": 3, "block": 2}
    weights = {"skl": call.params["skl"], "kl": call.params["kl"]}
    loss = HBI(8, scale, **sizes, **weights, transposed="batch", teacher=InteractionNetwork(4)).double()
    fill_hbi(loss, call.params["phases"])
    masks = {k: call[f"{v}_mask"].bool() for k, v in (("x_mask", "text"), ("y_mask", "video"))}
    masks = masks if name == "hbi_masked" else {}
    same(loss.x_merge[0](call["text"], masks.get("x_mask")), call.held["merged_text"])
    value = loss(call["text"], call["video"], **masks)
    parts = {"contrast": sum(call.held["contrast"]), "student": sum(call.held["student"]), "cross": call.held["cross"]}
    for part, wanted in parts.items():
        same(loss.monitors[part], wanted)
    held = {
        "logit_scale": scale.log_scale,
        "merge_conv": loss.x_merge[0].conv.weight,
        "merge_score": loss.y_merge[1].score.weight,
        "student_conv": loss.levels[1].student.last.weight,
        "attention_q": loss.y_merge[0].query.weight,
        "token_weight": loss.levels[1].x_weight[0].weight,
    }
    call.check(value, **held)


def test_every_held_call_is_checked():
    text = Path(__file__).read_text()
    assert [name for name in HELD if f'"{name}"' not in text] == []
