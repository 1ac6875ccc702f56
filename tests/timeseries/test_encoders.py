"""The encoder sees what its receptive field allows, treats gaps as masks, and its shortcuts change nothing."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.errors import InputError
from counterpoint.timeseries import from_tsai
from counterpoint.timeseries.encoders import TS2VecEncoder, pool_series, timestamp_mask
from counterpoint.timeseries.layers import SameConv


def small(**changes):
    torch.manual_seed(0)
    return TS2VecEncoder(**{"channels": 3, "dim": 8, "hidden": 6, "depth": 3, "dropout": 0.0, **changes}).double()


def test_full_size_has_the_official_number_of_parameters():
    # input 12 -> 64; ten blocks of two 64x64x3 convolutions; last block 64 -> 320 -> 320 with a pointwise shortcut
    expected = (12 * 64 + 64) + 10 * 2 * (64 * 64 * 3 + 64) + (64 * 320 * 3 + 320) + (320 * 320 * 3 + 320)
    expected += 64 * 320 + 320
    assert sum(p.numel() for p in TS2VecEncoder(12).parameters()) == expected


@pytest.mark.parametrize("dilation", [4, 9, 10, 16])
def test_wide_dilation_shortcut_equals_the_padded_convolution(dilation):
    torch.manual_seed(0)
    conv = SameConv(5, 7, 3, dilation).double()
    x = torch.randn(2, 10, 5, dtype=torch.float64, requires_grad=True)
    plain = F.conv1d(x.mT, conv.weight, conv.bias, padding=dilation, dilation=dilation).mT
    torch.testing.assert_close(conv(x), plain)
    ours = torch.autograd.grad(conv(x).square().sum(), [x, conv.weight])
    theirs = torch.autograd.grad(plain.square().sum(), [x, conv.weight])
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_receptive_field_is_the_stated_one():
    depth = 2
    encoder = small(depth=depth)
    reach = 2 * (2 ** (depth + 1) - 1)
    x = torch.randn(1, 80, 3, dtype=torch.float64, requires_grad=True)
    encoder(x)[0, 40].sum().backward()
    touched = torch.nonzero(x.grad[0].abs().sum(1)).squeeze()
    assert (touched.min().item(), touched.max().item()) == (40 - reach, 40 + reach)


def test_a_gap_is_a_masked_step():
    encoder, x = small(), torch.randn(2, 20, 3, dtype=torch.float64)
    keep = torch.ones(2, 20, dtype=torch.bool)
    keep[1, 5:8] = False
    gap = x.clone()
    gap[1, 5:8, 0] = torch.nan
    torch.testing.assert_close(encoder(gap), encoder(x, keep))
    assert torch.isfinite(encoder(gap)).all()


def test_samples_do_not_see_each_other_and_shift_moves_the_output():
    encoder, x = small(), torch.randn(3, 120, 3, dtype=torch.float64)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]))
    shifted = encoder(torch.roll(x, 5, 1))
    torch.testing.assert_close(shifted[:, 50:80], torch.roll(encoder(x), 5, 1)[:, 50:80], rtol=1e-9, atol=1e-9)


def test_masks_hide_what_they_say():
    generator = torch.Generator().manual_seed(0)
    binomial = timestamp_mask("binomial", 200, 100, generator)
    assert binomial.float().mean().item() == pytest.approx(0.5, abs=0.02)
    hidden = (~timestamp_mask("continuous", 500, 100, generator)).sum(1)
    assert hidden.max() <= 50
    assert hidden.min() >= 10
    assert timestamp_mask("all_true", 2, 5).all()
    with pytest.raises(InputError, match="choose one of binomial, continuous"):
        timestamp_mask("stripes", 1, 1)


def test_pooling_is_the_maximum_over_time():
    z = torch.randn(2, 7, 4)
    assert torch.equal(pool_series(z), z.max(1).values)


def test_importing_the_vertical_and_its_systems_does_not_import_tsai_or_fastai():
    code = (
        "import sys, counterpoint.timeseries as ts, counterpoint.timeseries.ts2vec; ts.from_tsai; ts.TS2VecEncoder; "
        "assert not {'tsai', 'fastai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    light = "import sys, counterpoint.timeseries, counterpoint.timeseries.configs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_tsai_architectures_by_name():
    with pytest.raises(InputError, match="'GPT' is not offered; choose one of InceptionTime"):
        from_tsai("GPT")


@pytest.mark.parametrize(
    ("name", "arguments", "options", "shape"),
    [
        ("InceptionTime", (3, 4), {}, (2, 4)),
        ("PatchTST", (3, None, 96), {"pred_dim": 20}, (2, 3, 20)),
        ("MiniRocketFeatures", (3, 96), {}, (2, 9996)),
    ],
)
def test_tsai_forward_passes(name, arguments, options, shape):
    pytest.importorskip("tsai", reason="tsai comes with the extra timeseries")
    encoder = from_tsai(name, *arguments, **options)
    x = torch.randn(2, 3, 96)
    if hasattr(encoder, "fit"):  # MiniRocket draws its biases from training windows
        encoder.fit(x)
    assert encoder(x).squeeze(-1).shape == shape


@pytest.mark.parametrize("error", [RuntimeError, OSError, ImportError])
def test_a_broken_torchvision_is_named_with_the_remedy(monkeypatch, error):
    import importlib

    def broken(name):
        raise error("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(
        InputError, match=rf"ResNet cannot be imported \({error.__name__}.*torch and torchvision from one index"
    ):
        from_tsai("ResNet")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("tsai", "InceptionTime needs the package tsai; pip install 'counterpoint.*', or use the encoder ts2vec"),
        ("torchvision", "tsai's InceptionTime cannot be imported: no torchvision; install it, or use one of"),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, missing, message):
    import importlib

    def absent(name):
        raise ModuleNotFoundError(f"no {missing}", name=missing)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=message):
        from_tsai("InceptionTime")


def test_only_the_leaf_module_of_an_architecture_is_imported(tmp_path):
    """A stand-in for the package, whose top level refuses to be imported beyond its leaves, as tsai.all does."""
    models = tmp_path / "tsai" / "models"
    models.mkdir(parents=True)
    (tmp_path / "tsai" / "__init__.py").write_text("")
    (tmp_path / "tsai" / "all.py").write_text("raise ImportError('cannot import name Param')")
    (models / "__init__.py").write_text("")
    (models / "FCN.py").write_text("import torch\nclass FCN(torch.nn.Identity): pass\n")
    (models / "PatchTST.py").write_text("")
    code = (
        "import sys; from counterpoint.timeseries import from_tsai; from_tsai('FCN', 3, 2); "
        "print([m for m in sys.modules if m.startswith('tsai.')])\n"
        "from counterpoint.common.errors import InputError\n"
        "try: from_tsai('PatchTST')\n"
        "except InputError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    first, second = done.stdout.splitlines()
    assert first == "['tsai.models', 'tsai.models.FCN']"
    assert second == "tsai.models.PatchTST of the tsai installed holds no PatchTST; pip install --upgrade tsai"
