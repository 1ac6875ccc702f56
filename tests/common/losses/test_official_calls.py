"""Whole calls of official training code, frozen: value, gradients and states to 1e-8 in float64."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from counterpoint.common.losses import (
    TCL,
    ALBEFContrast,
    LogitScale,
    NortonParagraph,
    PixelPropagation,
    PixPro,
    SepCLR,
    SlotCon,
    bucket_transport,
    crop_cells,
    pool_patches,
)

HELD = json.loads((Path(__file__).parent / "oracles" / "structured_losses.json").read_text())


class Held:
    """One frozen call: `inputs` as tensors (float64 leaves where the official call gave them a gradient)."""

    def __init__(self, name):
        self.held = HELD[name]
        self.inputs = {k: self.tensor(v) for k, v in self.held["inputs"].items()}
        self.leaves = {k: self.inputs[k].requires_grad_() for k in self.held["gradients"] if k in self.inputs}

    @staticmethod
    def tensor(value):
        found = torch.tensor(value)
        return torch.tensor(value, dtype=torch.float64) if found.is_floating_point() else found

    def __getitem__(self, key):
        return self.inputs[key]

    def same(self, key, found):
        torch.testing.assert_close(found.detach(), self.tensor(self.held[key]), rtol=0, atol=1e-8)

    def check(self, value, **gradients):
        """Value and gradients; `gradients` gives those of tensors that are no inputs by a function of no argument."""
        assert value.item() == pytest.approx(self.held["value"], rel=0, abs=1e-8)
        value.backward()
        found = {k: leaf.grad for k, leaf in self.leaves.items()} | {k: f() for k, f in gradients.items()}
        assert set(found) == set(self.held["gradients"])
        for key, grad in found.items():
            wanted = self.tensor(self.held["gradients"][key])
            torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-8, msg=lambda m, key=key: f"{key}: {m}")


def scale(temperature, **bounds):
    """A learnt temperature that is exact in float64."""
    found = LogitScale(temperature, **bounds).double()
    found.log_scale.data.fill_(-math.log(temperature))
    return found


def test_slotcon():
    held = Held("slotcon")
    predictor = nn.Linear(4, 4).double()
    loss = SlotCon(4, 4, predictor=predictor).double()
    with torch.no_grad():
        loss.prototypes.copy_(held["prototypes"])
        predictor.weight.copy_(held["predictor_weight"])
        predictor.bias.copy_(held["predictor_bias"])
    loss.teacher_prototypes, loss.centre = held["teacher_prototypes"], held["centre"]
    held.leaves = {k: held[k] for k in ("student1", "student2")}
    maps = [held[k] for k in ("student1", "student2", "teacher1", "teacher2")]
    value = loss(*maps, **{k: held[k] for k in ("box1", "box2", "flip1", "flip2")})
    held.check(
        value,
        prototypes=lambda: loss.prototypes.grad,
        predictor_weight=lambda: predictor.weight.grad,
        predictor_bias=lambda: predictor.bias.grad,
    )
    held.same("centre_after", loss.centre)
    held.same("teacher_prototypes_after", loss.teacher_prototypes)


@pytest.mark.parametrize("name", ["pixpro_p2", "pixpro_p1", "pixpro_p0.5"])
def test_pixpro(name):
    held = Held(name)
    layers, power = held.held["params"]["transform_layer"], held.held["params"]["pixpro_p"]
    propagate, gradients = PixelPropagation(5, power, layers).double(), {}
    if layers:
        conv = propagate.transform[0]
        with torch.no_grad():
            conv.weight.copy_(held["transform_weight"][:, :, None, None])
            conv.bias.copy_(held["transform_bias"])
        gradients["transform_weight"] = lambda: conv.weight.grad[:, :, 0, 0]
        gradients["transform_bias"] = lambda: conv.bias.grad
    held.leaves = {k: held[k] for k in ("online1", "online2")}
    y1, y2 = propagate(held["online1"]), propagate(held["online2"])
    held.same("propagated", y1)
    (centres1, cell1), (centres2, cell2) = (crop_cells(held[k], 3, 3) for k in ("box1", "box2"))
    value = PixPro()(y1, y2, held["momentum1"], held["momentum2"], centres1, centres2, cell1, cell2)
    held.check(value, **gradients)


def test_sepclr():
    held = Held("sepclr")
    held.check(SepCLR()(*(held[k] for k in ("c1", "c2", "s1", "s2")), target=held["target"]))


@pytest.mark.parametrize("name", ["norton_paragraph", "norton_paragraph_padded"])
@pytest.mark.parametrize("block", [1, 16])
def test_norton_paragraph(name, block, monkeypatch):
    held, plans = Held(name), []

    def kept(similarity, bucket, **settings):
        plans.append((bucket_transport(similarity, bucket, **settings), bucket))
        return plans[-1][0]

    monkeypatch.setattr("counterpoint.common.losses.norton_paragraph.bucket_transport", kept)
    loss = NortonParagraph(scale(0.07), count_padding=True, block=block).double()

    def rows(key):
        return held[key].unflatten(0, (-1, 4))

    tokens = {k: rows(k) for k in ("frames", "words", "frame_mask", "word_mask")}
    value = loss(rows("clips"), rows("captions"), **tokens)
    held.check(value, logit_scale=lambda: loss.logit_scale.log_scale.grad)
    first = torch.cat([plan.flatten(0, 1) for plan, _ in plans])[:2]
    held.same("plan", first)
    held.same("bucket", plans[0][1])


def test_norton_paragraph_leaves_padding_out_unless_told():
    held = Held("norton_paragraph_padded")

    def value(count_padding, **masks):
        loss = NortonParagraph(count_padding=count_padding)
        tokens = {k: held[k].unflatten(0, (-1, 4)) for k in ("frames", "words")}
        clips, captions = (held[k].unflatten(0, (-1, 4)) for k in ("clips", "captions"))
        return loss(clips, captions, **tokens, **masks).item()

    masks = {k: held[k].unflatten(0, (-1, 4)) for k in ("frame_mask", "word_mask")}
    assert value(True) == pytest.approx(value(False))  # nothing is padded
    assert abs(value(True, **masks) - value(False, **masks)) > 1e-3


def momentum_objective(objective, held):
    loss = objective(4, 8, scale(0.07, max_scale=1000.0, min_scale=2.0)).double()
    for modality in ("image", "text"):
        getattr(loss, f"{modality}_queue").push(held[f"{modality}_queue"])
    return loss


def check_momentum(loss, held, value):
    # T = exp(-log_scale): the official parameter is T itself.
    held.check(value, temp=lambda: -loss.logit_scale.log_scale.grad * math.exp(loss.logit_scale.log_scale.item()))
    for modality in ("image", "text"):
        held.same(f"{modality}_queue_after", getattr(loss, f"{modality}_queue").keys)


def test_albef():
    held = Held("albef_itc")
    loss = momentum_objective(ALBEFContrast, held)
    value = loss(*(held[k] for k in ("image", "text", "image_momentum", "text_momentum")), alpha=0.4)
    check_momentum(loss, held, value)


def test_tcl():
    held = Held("tcl")
    loss = momentum_objective(TCL, held)
    patches = nn.functional.normalize(held["image_patches_momentum"], dim=-1)
    held.same("pooled_patches", pool_patches(patches))
    value = loss(
        *(held[k] for k in ("image", "text", "image_momentum", "text_momentum")),
        image_tokens=held["image_patches_momentum"],
        text_tokens=held["text_tokens_momentum"],
        text_mask=held["text_mask"],
        alpha=0.4,
    )
    check_momentum(loss, held, value)


def test_every_held_call_is_checked():
    text = Path(__file__).read_text()
    assert [name for name in HELD if f'"{name}"' not in text] == []
