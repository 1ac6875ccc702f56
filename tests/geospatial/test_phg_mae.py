"""PHG-MAE: the released network in numbers, whole modalities hidden, and an ensemble that is the mean of its masks."""

import sys
import zlib
from pathlib import Path

import pytest
import torch

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.geospatial.data.raster import close_handles
from counterpoint.geospatial.mask_ensembles import mask_ensembles
from counterpoint.geospatial.models.safeuav import SafeUAV
from counterpoint.geospatial.phg_mae import PHGMAE
from counterpoint.geospatial.scene_files import write_scenery

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import batch_of, form

# Meehai/video-representations-extractor ddcb105, safeuav/model.py, in float64 and evaluation mode on closed-form
# weights: the first and the last pixel of an input whose sides divide by nothing, and the norm of all.
FIRST = [0.045799977830235185, 0.11315519574995829, 0.166412088792931, 0.1967277110500644]
LAST = [0.04058580555062235, 0.10098426495310146, 0.16080237197596672, 0.20390979147027577]
NORM = 7.387438197572598
SIZES = {10: 438_675, 16: 1_119_183, 32: 4_464_015}  # with 15 channels; released as 430k, 1M and 4M


def test_the_network_is_the_released_one():
    net = SafeUAV(5, 4, 3).double().eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            steps = torch.arange(p.numel(), dtype=torch.float64)
            wave = 0.2 * torch.sin(0.37 * steps + zlib.crc32(name.encode()) % 1000)
            norm = name.split(".")[-2] == "1" and name.endswith("weight")
            p.copy_((1 + wave if norm else wave).reshape(p.shape))
        y = net(torch.sin(1.3 * torch.arange(2 * 5 * 20 * 17, dtype=torch.float64)).reshape(2, 5, 20, 17))
    assert y[0, :, 0, 0].tolist() == pytest.approx(FIRST, rel=1e-10)
    assert y[1, :, -1, -1].tolist() == pytest.approx(LAST, rel=1e-10)
    assert y.norm().item() == pytest.approx(NORM, rel=1e-10)


def test_its_sizes_are_those_of_the_released_models():
    with torch.device("meta"):
        found = {n: sum(p.numel() for p in SafeUAV(15, 15, n).parameters()) for n in SIZES}
    assert found == SIZES


def system(classes=(1, 2, 5), bands=None, **changes):
    torch.manual_seed(0)
    config = override(PHGMAE.Config(), {"filters": 3, **changes})
    return PHGMAE(config, form(scaling="standard", bands=bands).assets().replace(codes=list(classes)))


def pair(one, n=4, size=16):
    generator = torch.Generator().manual_seed(1)
    made = {s: torch.randn(n, one.channels(s), size, size, generator=generator) for s in one.form.bands}
    codes = torch.randint(0, 7, (n, size, size), generator=generator)
    return {**batch_of(made), "landcover": codes, "shown": one.drawn(n, generator)}


def test_whole_modalities_are_hidden_and_the_land_cover_is_never_an_input():
    one = system()
    assert list(one.groups) == ["visible", "red_edge", "infrared", "shortwave", "air", "radar"]
    batch = pair(one)
    x = one.masked(one.stacked(batch)[0], batch["shown"])
    assert x.shape[1] == 2 + 12 + 3
    assert x[:, 14:].abs().max() == 0
    for row, shown in enumerate(batch["shown"].tolist()):
        for channel, owner in enumerate(one.owner.tolist()):
            assert bool(x[row, channel].any()) == shown[owner]


@torch.no_grad()
def test_what_is_hidden_has_no_say():
    one = system().eval()
    batch = pair(one)
    shown = torch.tensor([[True, False, False, True, False, False]]).expand(4, -1)
    images = one.stacked(batch)[0]
    changed = images + 100 * (~shown[:, one.owner, None, None])
    assert torch.equal(one.predicted(images, shown)[1], one.predicted(changed, shown)[1])


def test_sets_of_modalities_keep_visible_light_and_the_others_by_chance():
    one = system()
    drawn = one.drawn(4000, torch.Generator().manual_seed(0))
    share = drawn.double().mean(0)
    assert share[0] == 1
    assert ((share[1:] - 0.5).abs() < 0.04).all()
    assert len({tuple(row) for row in drawn.tolist()}) == 2**5
    assert system(always=("none",), shown=0.0).drawn(500).sum(1).eq(1).all()
    with pytest.raises(InputError, match="--always names visible"):
        system(bands={"s1": ("VV", "VH"), "s2": ("B08", "B11")})


def test_the_loss_is_its_equation_over_what_is_known():
    one = system().double()
    batch = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in pair(one).items()}
    batch["s2_valid"][1, :5] = False
    batch["landcover"][2] = 0  # no class of the training
    images, valid, _ = one.stacked(batch)
    found = one.losses(batch, one.embed(batch))
    bands, logits = one.predicted(images, batch["shown"])
    for row in range(4):
        wanted = 0.0
        for group in range(6):
            own = (one.owner == group).nonzero().flatten()
            values = [(bands[row, c] - images[row, c])[valid[row, c]].square() for c in own]
            wanted += torch.cat(values).mean()
        assert found["reconstruction"][row].item() == pytest.approx(wanted.item(), rel=1e-9)
        pixels = [(r, c, one.classes.index(v)) for r, line in enumerate(batch["landcover"][row].tolist())
                  for c, v in enumerate(line) if v in one.classes]  # fmt: skip
        logs = logits[row].log_softmax(0)
        task = -sum(logs[k, r, c].item() for r, c, k in pixels) / max(len(pixels), 1)
        assert found["task"][row].item() == pytest.approx(task, rel=1e-9, abs=1e-12)


def test_without_land_cover_the_modalities_are_left():
    one = system(classes=())
    batch = pair(one)
    assert set(one.losses(batch, one.embed(batch))) == {"reconstruction"}
    with pytest.raises(InputError, match="no land cover"):
        one.ensemble(batch)
    with pytest.raises(InputError, match="nothing is left to learn"):
        system(classes=(), reconstruction=0.0)


@torch.no_grad()
def test_the_ensemble_is_the_mean_of_its_masks_and_its_spread_their_deviation():
    one = system().eval()
    batch = pair(one)
    found = one.ensemble(batch, masks=5, seed=3)
    sets = one.drawn(5, torch.Generator().manual_seed(3))
    images = one.stacked(batch)[0]
    each = torch.stack([one.predicted(images, s.expand(4, -1))[1].softmax(1) for s in sets])
    assert torch.allclose(found.probabilities, each.mean(0), atol=1e-6)
    assert torch.allclose(found.probabilities.sum(1), torch.ones(4, 16, 16), atol=1e-5)
    assert torch.allclose(found.spread, each.std(0, correction=0).mean(1), atol=1e-6)
    same = one.ensemble(batch, masks=1)
    assert same.spread.abs().max() == 0
    assert same.disagreement.abs().max() == 0
    everything = system(shown=1.0).eval()
    assert torch.allclose(everything.ensemble(batch).probabilities, everything.with_all(batch), atol=1e-6)


@torch.no_grad()
def test_radar_alone_is_enough_in_use():
    one = system().eval()
    both = pair(one)
    alone = {k: v for k, v in both.items() if not k.startswith("s2")}
    assert torch.allclose(one.features(alone)["s1"], one.features(both)["s1"], atol=1e-5)
    assert set(one.encode(alone)) == {"s1"}
    assert set(one.dense_features(both)) == {"s1", "s2", "joint"}
    assert torch.isfinite(one.ensemble(alone).probabilities).all()


def test_it_trains_and_its_ensemble_is_evaluated(tmp_path):
    scenes = write_scenery(tmp_path / "scenes", 9, 32, seed=3).manifest
    settings = {"data.manifest": str(scenes), "data.size": 16, "filters": 2, "masks": 3, "train.batch_size": 8,
                "train.max_epochs": 1, "train.tensorboard": False, "train.out": str(tmp_path / "run")}  # fmt: skip
    fit(create_system(PHGMAE, override(PHGMAE.Config(), settings)))
    run = OpenRun.of(load_run(tmp_path / "run", "last"))
    found = mask_ensembles(run)
    assert len(found) == 4
    spread = found["land cover, spread across masks"].metrics
    assert 0 <= spread["disagreement"] <= 1
    assert spread["spread"] > 0
    total = {name: score.notes[0] for name, score in found.items() if "spread" not in name}
    pixels = int(total["land cover, ensemble of masks"].split()[0])
    assert int(total["land cover, single masks"].split()[0]) == 3 * pixels


def test_masks_are_scored_in_one_pass_each_on_unseen_places_and_bad_files_are_left_out(tmp_path, monkeypatch):
    scenes = write_scenery(tmp_path / "scenes", 9, 32, seed=3).manifest
    settings = {"data.manifest": str(scenes), "data.size": 16, "filters": 2, "masks": 3, "train.batch_size": 8,
                "train.max_epochs": 1, "train.tensorboard": False, "train.out": str(tmp_path / "run"),
                "train.on_error": "skip", "train.max_bad": 0.5}  # fmt: skip
    fit(create_system(PHGMAE, override(PHGMAE.Config(), settings)))
    table = Manifest.load(scenes).select(split="test")
    (table.folder / table.row(0)["landcover"]).write_bytes(b"II*")
    close_handles()
    one = load_run(tmp_path / "run", "last")
    passes = []
    predicted = PHGMAE.predicted
    monkeypatch.setattr(PHGMAE, "predicted", lambda *a: passes.append(len(a[1])) or predicted(*a))
    found = mask_ensembles(OpenRun.of(one))
    chips = 4 * (len(table) - 1)
    assert found["land cover, ensemble of masks"].notes[0].startswith(f"{chips * 256} places")
    assert sum(passes) == chips * (3 + 1)  # three masks, and all modalities once
    train = mask_ensembles(OpenRun.of(one, split="train"))
    assert "every place of the split was trained on" in train["land cover, ensemble of masks"].reason
