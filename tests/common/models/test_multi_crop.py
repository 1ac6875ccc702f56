"""Multi-crop: what a crop holds, one pass per size, and SwAV at work on it."""

import pytest
import torch
from torch import nn

from counterpoint.common.losses import SwAV
from counterpoint.common.models import MultiCrop, encode_crops, random_resized_crop


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ramps(batch, high, wide):
    """Every pixel holds its own place, y and x from 0 to 1 over the image."""
    y, x = torch.meshgrid(torch.arange(high) + 0.5, torch.arange(wide) + 0.5, indexing="ij")
    return torch.stack([y / high, x / wide]).double().expand(batch, -1, -1, -1)


def test_a_whole_crop_is_a_resize():
    x = torch.randn(3, 2, 12, 12, generator=seeded(), dtype=torch.float64)
    whole = random_resized_crop(x, 6, (1.0, 1.0), ratio=(1.0, 1.0))
    wanted = nn.functional.interpolate(x, size=(6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(whole, wanted)
    torch.testing.assert_close(random_resized_crop(x, 12, (1.0, 1.0), ratio=(1.0, 1.0)), x)


@pytest.mark.parametrize("shape", [(60, 60), (40, 90)])
def test_crops_have_the_share_and_the_aspect_they_are_told(shape):
    n, size = 400, 30
    crops = random_resized_crop(ramps(n, *shape), size, (0.05, 0.14), generator=seeded())
    spans = [(crops[:, i].amax((1, 2)) - crops[:, i].amin((1, 2))) * size / (size - 1) for i in (0, 1)]
    area, aspect = spans[0] * spans[1], spans[1] * shape[1] / (spans[0] * shape[0])
    assert ((area > 0.045) & (area < 0.145)).all()
    assert abs(area.mean() - 0.095) < 0.005
    assert ((aspect > 0.74) & (aspect < 1.35)).all()
    middle = crops.mean((2, 3))
    assert (middle.amin(0) < 0.25).all()
    assert (middle.amax(0) > 0.75).all()


def test_stretches_of_series():
    x = (torch.arange(100) / 100).double().expand(200, 1, -1)
    crops = random_resized_crop(x, 20, (0.2, 0.3), generator=seeded())
    span = (crops.amax(2) - crops.amin(2)) * 20 / 19
    assert crops.shape == (200, 1, 20)
    assert ((span > 0.18) & (span < 0.31)).all()
    with pytest.raises(ValueError, match="batch, channels"):
        random_resized_crop(torch.zeros(3, 4), 2, (0.1, 1.0))


def test_one_pass_per_size_gives_what_single_passes_give():
    passes = []

    class Encoder(nn.Module):
        def forward(self, x):
            passes.append(tuple(x.shape))
            return x.mean((2, 3))

    crops = MultiCrop((8, 4), (2, 3), generator=seeded())(torch.randn(5, 3, 16, 16, generator=seeded()))
    together = encode_crops(Encoder(), crops)
    assert passes == [(10, 3, 8, 8), (15, 3, 4, 4)]
    for one, crop in zip(together, crops, strict=True):
        torch.testing.assert_close(one, crop.mean((2, 3)))


def test_swav_with_multi_crop_tells_synthetic_textures_apart():
    """Six kinds of stripes: after training, the prototypes' assignments name the kind without having seen it."""
    kinds = torch.arange(96) % 6
    place = torch.arange(24.0)
    angle, width = kinds % 3, 2.0 + 3.0 * (kinds // 3)
    across = torch.stack([place[:, None].expand(24, 24), place.expand(24, 24), (place[:, None] + place) / 2])[angle]
    images = torch.sin(2 * torch.pi * across / width[:, None, None])[:, None]
    images = images + 0.2 * torch.randn(images.shape, generator=seeded(1))
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16),
    )  # fmt: skip
    loss = SwAV(16, 12)
    crops = MultiCrop((16, 8), (2, 2), ((0.5, 1.0), (0.2, 0.4)), generator=seeded(2))
    optimizer = torch.optim.Adam([*encoder.parameters(), *loss.parameters()], 3e-3)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(*encode_crops(encoder, crops(images)))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    with torch.no_grad():
        z = nn.functional.normalize(encoder(images), dim=1)
        code = (z @ nn.functional.normalize(loss.prototypes, dim=1).T).argmax(1)
    purity = sum(torch.bincount(kinds[code == c]).max().item() for c in code.unique()) / len(code)
    assert purity > 0.7  # two kinds in six by chance alone would give about a third
