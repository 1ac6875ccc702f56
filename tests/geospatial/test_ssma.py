"""SSMA: the gate's equation and its limits, and CROMA with it in the place of the joint encoder."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d

from counterpoint.common.errors import InputError
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.models.croma import on_grid
from counterpoint.geospatial.models.masking import random_mask
from counterpoint.geospatial.models.ssma import SSMA

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import batch_of, system_of

TINY = {"encoder.dim": 32, "encoder.depth": 2, "encoder.heads": 4, "encoder.patch_size": 4, "decoder.dim": 32,
        "decoder.heads": 4, "data.size": 16, "fusion": "ssma"}  # fmt: skip


def maps(n=2, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2)]


def block(dim=16, reduction=8):
    torch.manual_seed(0)
    return SSMA(dim, reduction).double().eval()


@torch.no_grad()
def test_it_is_its_equation():
    fusion, (a, b) = block(), maps()
    fusion.norm.running_mean.uniform_(-1, 1)
    fusion.norm.running_var.uniform_(0.5, 2)
    x = torch.cat([a, b], 1)
    inner = conv2d(x, fusion.squeeze.weight, fusion.squeeze.bias, padding=1).clamp_min(0)
    gate = 1 / (1 + torch.exp(-conv2d(inner, fusion.excite.weight, fusion.excite.bias, padding=1)))
    y = conv2d(gate * x, fusion.mix.weight, padding=1)
    norm = fusion.norm
    y = (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    assert torch.allclose(fusion(a, b), y, atol=1e-12)
    assert fusion.squeeze.out_channels == 4
    assert 0 < fusion.gate(a, b).min() < fusion.gate(a, b).max() < 1


@torch.no_grad()
def test_an_open_gate_is_a_convolution_of_both_and_a_shut_one_lets_nothing_through():
    fusion, (a, b) = block(), maps()
    fusion.excite.weight.zero_()
    fusion.excite.bias.fill_(50.0)
    plain = conv2d(torch.cat([a, b], 1), fusion.mix.weight, padding=1) / (1 + fusion.norm.eps) ** 0.5
    assert torch.allclose(fusion(a, b), plain, atol=1e-9)
    fusion.excite.bias.fill_(-800.0)
    assert fusion(a, b).abs().max() == 0
    fusion.excite.bias[:16] = 50.0  # of both sensors the first alone
    assert torch.allclose(fusion(a, b), fusion(a, torch.zeros_like(b)), atol=1e-12)


def test_the_gate_learns_to_leave_out_a_sensor_that_is_noise():
    torch.manual_seed(0)
    fusion = SSMA(8, 2)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=1e-2)
    for _ in range(150):
        a = torch.randn(8, 8, 4, 4)
        b = 3 * torch.randn_like(a)
        loss = (fusion(a, b) - a).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gate = fusion.eval().gate(a, b).mean((0, 2, 3))
    assert gate[:8].mean() > gate[8:].mean() + 0.2


def pair(n=3, size=16):
    torch.manual_seed(0)
    return batch_of({"s1": torch.randn(n, 2, size, size), "s2": torch.randn(n, 12, size, size)})


def test_tokens_lie_where_their_patches_do():
    mask = random_mask(torch.rand(2, 9), 0.5)
    tokens = mask.keep.unsqueeze(-1).float() + 1
    laid = on_grid(tokens, mask)[..., 0]
    for row in range(2):
        kept = mask.keep[row].tolist()
        assert laid[row].tolist() == [p + 1.0 if p in kept else 0.0 for p in range(9)]


def test_croma_learns_the_gate_from_the_reconstruction():
    one, batch = system_of(Croma, TINY), pair()
    found = one.losses(batch, one.embed(batch))
    found["reconstruction"].mean().backward()
    assert one.network.joint_encoder.excite.weight.grad.abs().max() > 0
    with torch.no_grad():
        tokens = one.eval().tokens(batch)
        assert tokens["joint"].shape == tokens["s1"].shape
        wide = one.tokens(pair(size=24))
        assert wide["joint"].shape == (3, 36, 32)
        assert one.dense_features(batch)["joint"].shape == (3, 4, 4, 32)


@torch.no_grad()
def test_where_the_optical_sensor_sees_nothing_it_has_no_say():
    one, batch = system_of(Croma, TINY).eval(), pair()
    batch["s2_valid"][:, :, 8:] = False
    tokens = one.network.encode(one.images(batch), None, one.valid(batch, 4), joint=False)
    other = {**tokens, "s2": tokens["s2"] + 100 * (~one.valid(batch, 4)["s2"]).unsqueeze(-1)}
    parts = (one.images(batch), {}, one.valid(batch, 4))
    assert torch.allclose(one.network.fuse(tokens, *parts), one.network.fuse(other, *parts), atol=1e-5)


def test_it_needs_something_to_learn_from():
    with pytest.raises(InputError, match="--fusion ssma learns from the reconstruction"):
        system_of(Croma, {**TINY, "reconstruction": 0.0})
    with pytest.raises(InputError, match="no gate"):
        system_of(Croma, {**TINY, "weights": "CROMA_base.pt"})
