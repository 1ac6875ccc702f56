"""Objectives of views against their official code, frozen: value and gradient to 1e-8 in float64."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.common.losses import (
    DCLW,
    GRAM,
    WMSE,
    BarlowTwins,
    ModX,
    MVInfoNCE,
    SoftContrastive,
    SupCon,
    SwAV,
    TripletHinge,
    VICReg,
)

HELD = json.loads((Path(__file__).parent / "oracles" / "view_losses.json").read_text())


def tensor(value):
    found = torch.tensor(value)
    return torch.tensor(value, dtype=torch.float64) if found.is_floating_point() else found


def check(name, loss, **settings):
    """`loss` of the inputs in their order has the official value and gradients."""
    held = HELD[name]
    leaves = {k: tensor(held["inputs"][k]).requires_grad_() for k in held["gradients"]}
    value = loss(*leaves.values(), **settings)
    assert value.item() == pytest.approx(held["value"], rel=0, abs=1e-8)
    value.backward()
    for key, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, tensor(held["gradients"][key]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["supcon", "supcon_lone"])
def test_supcon(name):
    check(name, SupCon(HELD[name]["params"]["temperature"]), label=tensor(HELD[name]["inputs"]["label"]))


def test_dclw():
    check("dclw", DCLW(0.1, sigma=0.5, symmetric=False))


def test_triplet_hinge():
    check("triplet_hinge", TripletHinge(margin=0.6))


def test_vicreg():
    check("vicreg", VICReg())


def test_barlow_twins():
    check("barlow_twins", BarlowTwins())


@pytest.mark.parametrize("name", ["wmse", "wmse_eps"])
def test_wmse(name):
    check(name, WMSE(eps=HELD[name]["params"]["eps"], separate=True))


@pytest.mark.parametrize("name", ["gram3", "gram4"])
def test_gram(name):
    check(name, GRAM(0.07))


@pytest.mark.parametrize("name", ["swav", "swav_queue"])
def test_swav(name):
    """Gradients of the prototypes too, up to the radial part, which the official code overwrites before each step."""
    held = HELD[name]
    inputs = {k: tensor(v) for k, v in held["inputs"].items()}
    prototypes = inputs["prototypes"]
    size = inputs["queue"].shape[1] if "queue" in inputs else 0
    loss = SwAV(prototypes.shape[1], len(prototypes), queue_size=size).double()
    with torch.no_grad():
        loss.prototypes.copy_(prototypes)
    for place in range(2 if size else 0):
        loss.queues[place].push(inputs["queue"][place].flip(0))  # the official queue has its newest rows first
    crops = inputs["crops"].requires_grad_()
    value = loss(*crops.chunk(4))
    assert value.item() == pytest.approx(held["value"], rel=0, abs=1e-8)
    value.backward()
    torch.testing.assert_close(crops.grad, tensor(held["gradients"]["crops"]), rtol=0, atol=1e-8)
    wanted = tensor(held["gradients"]["prototypes"])
    units = normalize(prototypes, dim=1)
    wanted = wanted - (wanted * units).sum(1, keepdim=True) * units
    torch.testing.assert_close(loss.prototypes.grad, wanted, rtol=0, atol=1e-8)
    for place in range(2 if size else 0):
        found, kept = loss.queues[place].keys, tensor(held["queue_after"])[place]
        torch.testing.assert_close(found[found[:, 0].argsort()], kept[kept[:, 0].argsort()], rtol=0, atol=1e-8)


def test_mv_infonce():
    check("mv_infonce", MVInfoNCE(0.2))


@pytest.mark.parametrize(("name", "key"), [("d2f_soft", "label_embedding"), ("d2f_hard", "label")])
def test_dialog2flow(name, key):
    check(name, SoftContrastive(0.05, label_temperature=0.35), **{key: tensor(HELD[name]["inputs"][key])})


def test_modx():
    old = {k: tensor(HELD["modx"]["inputs"][k]) for k in ("old_a", "old_b")}
    check("modx", ModX(0.07, alpha=20.0), **old)


def test_every_held_call_is_checked():
    text = Path(__file__).read_text()
    assert [name for name in HELD if f'"{name}"' not in text] == []
