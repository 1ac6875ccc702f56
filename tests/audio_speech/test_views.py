"""Augmentations: the identity without them, the stated kind with them."""

import pytest
import torch

from counterpoint.audio_speech.augment import audio_view, sheet_view
from counterpoint.audio_speech.configs import AudioAugmentConfig, SheetAugmentConfig

NO_SHEET = SheetAugmentConfig(0, 0, 0.8, 0, (0.9, 1.1), 0, 3.0, 0, 0, 0, 0, 0)
NO_AUDIO = AudioAugmentConfig(0, 0.7, 0, 0, 0.2, 0, (0.5, 1.8), 0, 0, 12.0, 0, 10.0)


def sheets(batch: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 160, 320), dtype=torch.uint8, generator=generator)


def sounds(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 210, 92, generator=torch.Generator().manual_seed(0)) * 2


def test_with_every_probability_zero_the_random_path_is_the_plain_one():
    """Bilinear sampling at the centres of 2 x 2 blocks is the mean of each block."""
    assert torch.allclose(sheet_view(sheets(), 200, NO_SHEET), sheet_view(sheets(), 200), atol=1e-5)
    assert torch.allclose(audio_view(sounds(), 84, NO_AUDIO), audio_view(sounds(), 84), atol=1e-5)


def test_plain_views_have_the_network_s_sizes_and_orientation():
    page = torch.full((1, 160, 200), 255, dtype=torch.uint8)
    page[0, :2, 4:6] = 0
    view = sheet_view(page, 200)
    assert view.shape == (1, 1, 80, 100)
    assert view[0, 0, 0, 2] == 1.0, "ink is 1"
    assert view.sum() == 1.0, "paper is 0"
    sound = torch.zeros(1, 84, 92)
    sound[0, 10, 3] = 1.5
    assert audio_view(sound, 84)[0, 0, 3, 10] == 1.5


@pytest.mark.parametrize("kind", ["sheet", "audio"])
def test_views_are_drawn_from_the_generator_and_differ_between_samples(kind):
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        if kind == "sheet":
            same = sheets(1).expand(8, -1, -1)
            return sheet_view(same, 200, SheetAugmentConfig(), generator)
        return audio_view(sounds(1).expand(8, -1, -1), 84, AudioAugmentConfig(), generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    first = draw(1)
    assert sum(not torch.equal(first[0], other) for other in first[1:]) >= 6
    assert torch.isfinite(first).all()


def test_a_shift_moves_the_page_and_brings_in_what_lay_beyond():
    page = torch.full((64, 160, 320), 255, dtype=torch.uint8)
    page[:, :, 60 + 100 : 60 + 104] = 0  # a line in the middle of the window
    page[:, :, :20] = 0  # never within reach: the shift keeps 80 % of the window
    only = SheetAugmentConfig(1.0, 0, 0.8, 0, (0.9, 1.1), 0, 3.0, 0, 0, 0, 0, 0)
    view = sheet_view(page, 200, only, torch.Generator().manual_seed(0))
    place = view[:, 0, 40].argmax(dim=1).float()
    assert place.min() >= 29
    assert place.max() <= 72
    assert place.std() > 8, "uniform over 40 of 100 columns"


def test_stretching_keeps_the_onset_in_its_place_and_changes_the_tempo():
    sound = torch.zeros(64, 210, 92)
    for beat in (-20, 0, 20):
        sound[:, 63 + 42 + beat] = 1.0
    only = AudioAugmentConfig(0, 0.7, 0, 0, 0.2, 1.0, (0.5, 1.8), 0, 0, 12.0, 0, 10.0)
    view = audio_view(sound, 84, only, torch.Generator().manual_seed(0))
    assert (view[:, 0, 0, 42] == 1.0).all()
    later = view[:, 0, 0, 45:]
    distance = (later * (torch.arange(45, 84) - 42)).sum(dim=1) / later.sum(dim=1)  # of the beat 20 frames later
    assert distance.std() > 4
    assert distance.min() > 20 / 1.8 - 1
    assert distance.max() < 20 / 0.5 + 1


def test_gain_multiplies_magnitudes():
    only = AudioAugmentConfig(0, 0.7, 0, 0, 0.2, 0, (0.5, 1.8), 0, 1.0, 12.0, 0, 10.0)
    sound = sounds(16)
    view = audio_view(sound, 84, only, torch.Generator().manual_seed(0))
    plain = audio_view(sound, 84)
    factor = (10**view - 1) / (10**plain - 1).clamp_min(1e-3)
    decibel = 20 * torch.log10(factor.flatten(1).median(dim=1).values)
    assert decibel.abs().max() <= 12.1
    assert decibel.std() > 4
    spread = (factor - factor.flatten(1).median(dim=1).values[:, None, None, None]).abs()
    assert spread[plain > 0.1].max() < 1e-2, "one factor for the whole snippet"


def test_masks_silence_at_most_a_fifth():
    only = AudioAugmentConfig(0, 0.7, 1.0, 1.0, 0.2, 0, (0.5, 1.8), 0, 0, 12.0, 0, 10.0)
    view = audio_view(torch.ones(64, 210, 92), 84, only, torch.Generator().manual_seed(0))[:, 0]
    frames, bands = (view == 0).all(dim=1).sum(dim=1), (view == 0).all(dim=2).sum(dim=1)
    assert frames.max() <= 0.2 * 84
    assert bands.max() <= 0.2 * 92
    assert (frames > 0).float().mean() > 0.8
