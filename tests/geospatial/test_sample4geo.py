"""Sample4Geo's loss and encoder are the official ones; a ground is no negative of itself; two times are two views."""

import sys
import zlib
from pathlib import Path

import pandas as pd
import pytest
import torch

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.losses.scale import LogitScale
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.geospatial.models.convnext import ConvNeXt
from counterpoint.geospatial.sample4geo import Sample4Geo
from counterpoint.geospatial.scene_files import write_scenery

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import batch_of, system_of

# Skyy93/Sample4Geo 498c651, sample4geo/loss.py, in float64: loss, norms of the gradients of both views, gradient of the
# logit scale. A shared oracle of the same file with other inputs stands in the losses' own tests.
OFFICIAL = {
    0.0: (7.884292265506096, 3.4603596697459724, 3.321182388675174, 7.336679966766405),
    0.1: (7.981692303426532, 3.2336293384023307, 3.1059120007687144, 7.43408000468684),
}
# facebookresearch/ConvNeXt 048efce, models/convnext.py, `forward_features` in float64 on closed-form weights.
FEATURES = [
    [-0.44267991600634016, -0.2396366250273666, 0.5643367898617051, 0.9865079775648815],
    [-0.4490497347616131, -0.2969354389746072, 0.4918159201866887, 0.9347091193199543],
]
NORM = 4.538231364121862
CONVNEXT_B = 88_591_464 - 1000 * (1024 + 1)
TINY = {"encoder.depths": [1, 1], "encoder.widths": [8, 16], "encoder.patch_size": 4, "data.size": 16}


@pytest.mark.parametrize("smoothing", OFFICIAL)
@pytest.mark.parametrize("grounds", [None, torch.arange(5)])
def test_the_loss_and_its_gradients_are_the_official_ones(smoothing, grounds):
    """With a ground each as well: nothing is left out."""
    count = torch.arange(35.0, dtype=torch.float64)
    a, b = torch.sin(0.7 * count + 0.1).reshape(5, 7), torch.sin(1.1 * count + 0.3).reshape(5, 7)
    a.requires_grad_(), b.requires_grad_()
    contrast = system_of(Sample4Geo, {**TINY, "label_smoothing": smoothing}).contrast.double()
    loss = contrast(a, b, group=grounds)
    scale = next(contrast.parameters())
    grads = torch.autograd.grad(loss, (a, b, scale))
    found = (loss.item(), grads[0].norm().item(), grads[1].norm().item(), grads[2].item())
    assert found == pytest.approx(OFFICIAL[smoothing], rel=1e-6)  # the temperature is kept in single precision


def official_name(name):
    parts = name.split(".")
    if parts[0] == "stems":
        return ".".join(["downsample_layers", "0", *parts[2:]])
    return ".".join(["downsample_layers", str(int(parts[1]) + 1), *parts[2:]]) if parts[0] == "halvings" else name


def test_the_encoder_is_convnext():
    net = ConvNeXt({"s2": 5}, (1, 2, 1, 1), (4, 6, 8, 10), 4).double()
    norms = {"downsample_layers.0.1.weight", *(f"downsample_layers.{i}.0.weight" for i in (1, 2, 3))}
    with torch.no_grad():
        for name, p in net.named_parameters():
            name = official_name(name)
            steps = torch.arange(p.numel(), dtype=torch.float64)
            wave = 0.2 * torch.sin(0.37 * steps + zlib.crc32(name.encode()) % 1000)
            about_one = name.endswith("gamma") or ("norm" in name and name.endswith("weight")) or name in norms
            p.copy_((1 + wave if about_one else wave).reshape(p.shape))
        x = torch.sin(1.3 * torch.arange(2 * 5 * 64 * 32, dtype=torch.float64)).reshape(2, 5, 64, 32)
        y = net.represent(net(x, "s2"))
    assert torch.allclose(y[:, :4], torch.tensor(FEATURES, dtype=torch.float64), rtol=0, atol=1e-12)
    assert y.norm().item() == pytest.approx(NORM, rel=1e-12)


def test_the_full_encoder_has_the_size_of_convnext_b():
    sizes = Sample4Geo.Config().encoder
    with torch.device("meta"):
        net = ConvNeXt({"s2": 3}, sizes.depths, sizes.widths, sizes.patch_size)
    assert sum(p.numel() for p in net.parameters()) == CONVNEXT_B


def pair(n=4, size=16):
    torch.manual_seed(0)
    batch = batch_of({"s1": torch.randn(n, 2, size, size), "s2": torch.randn(n, 12, size, size)})
    return batch | {"row": torch.zeros(n, dtype=torch.long), "col": torch.arange(n)}


def test_both_sensors_share_all_but_their_stems_unless_told_otherwise():
    count = [sum(p.numel() for p in system_of(Sample4Geo, {**TINY, "shared": s}).encoders.parameters())
             for s in (True, False)]  # fmt: skip
    one = system_of(Sample4Geo, TINY)
    stems = sum(p.numel() for p in one.encoders[0].stems.parameters())
    assert count[1] - stems == 2 * (count[0] - stems)
    assert len(one.encoders) == 1


def test_a_ground_seen_again_is_no_negative_and_the_official_loss_is_the_rest():
    one, batch = system_of(Sample4Geo, TINY), pair()
    batch["group"] = ["a"] * 4
    z = one.embed(batch)
    alone = one.losses(batch, z)["contrast"]
    plain = InfoNCE(LogitScale(0.07), label_smoothing=0.1).row_losses(*z.values())
    assert torch.allclose(alone, plain, rtol=1e-5)
    again = {**batch, "col": torch.tensor([0, 0, 1, 2])}
    assert not torch.allclose(one.losses(again, z)["contrast"][:2], plain[:2])
    assert one.grounds(again)[0] == one.grounds(again)[1]
    # Two grounds seen twice each: every row is left with one negative of each of the others' chips.
    twice = {**batch, "col": torch.tensor([0, 0, 1, 1])}
    a, b = (torch.nn.functional.normalize(v, dim=-1) for v in z.values())
    logits = a @ b.T / 0.07
    kept = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]]).bool()

    def side(x):
        logs = torch.log_softmax(x.masked_fill(~kept, -torch.inf), -1)
        uniform = torch.where(kept, logs, 0).sum(-1) / kept.sum(-1)
        return -(0.9 * logs.diagonal() + 0.1 * uniform)

    assert torch.allclose(one.losses(twice, z)["contrast"], (side(logits) + side(logits.T)) / 2, rtol=1e-4)


@torch.no_grad()
def test_places_without_data_do_not_count():
    one, batch = system_of(Sample4Geo, TINY).eval(), pair()
    batch["s2_valid"][:, :, 8:] = False
    x = one.maps(batch)["s2"]
    assert torch.allclose(one.embed(batch)["s2"], one.encoder("s2").norm(x[..., 0].mean(2)), atol=1e-6)
    batch["s2_valid"][:] = False
    assert torch.isfinite(one.embed(batch)["s2"]).all()


def test_what_it_cannot_pair_is_said():
    with pytest.raises(InputError, match="--views times"):
        system_of(Sample4Geo, TINY, sensors=("s2",))
    with pytest.raises(InputError, match="one sensor"):
        system_of(Sample4Geo, {**TINY, "views": "times"})
    with pytest.raises(InputError, match="stride of 8"):
        system_of(Sample4Geo, TINY).embed(pair(size=20))
    with pytest.raises(InputError, match="2 stages and --encoder.widths 1"):
        override(Sample4Geo.Config(), {"encoder.depths": [1, 1], "encoder.widths": [8]})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenery(tmp_path_factory.mktemp("s4g"), 9, 32, seasons=2, seed=3).manifest


def settings(scenes, out, **changes):
    near = {"near": 2, "far": 2, "ranks": 6, "similar_every": 1, "similar_start": 1}
    return {**TINY, "data.manifest": str(scenes), "train.out": str(out), "train.batch_size": 8, "train.max_epochs": 2,
            "train.tensorboard": False, "train.plugins": {"neighbour_batches": near}, **changes}  # fmt: skip


def test_it_trains_on_both_sensors_in_batches_of_neighbours(scenes, tmp_path):
    fit(create_system(Sample4Geo, override(Sample4Geo.Config(), settings(scenes, tmp_path / "run"))))
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["train/contrast"].dropna().size
    system = load_run(tmp_path / "run", "last")
    chips = system.evaluation_datasets().test
    batch = chips.collate([chips[i] for i in range(3)])
    assert {k: v.shape for k, v in system.encode(batch).items()} == {"s1": (3, 16), "s2": (3, 16)}
    assert system.dense_features(batch)["s2"].shape == (3, 2, 2, 16)


def test_two_times_of_one_sensor_are_the_same_ground(scenes, tmp_path):
    changes = {"views": "times", "data.sensors": ("s2",)}
    config = override(Sample4Geo.Config(), settings(scenes, tmp_path / "run", **changes))
    system = create_system(Sample4Geo, config)
    train, test = system.datasets().train, system.evaluation_datasets().test
    table = Manifest.load(scenes).frame
    assert len(train) == 4 * table.loc[table["split"] == "train", "group"].nunique()
    for i in range(len(test)):
        a, b = test[i]["pair"]
        assert (a["group"], a["row"], a["col"]) == (b["group"], b["row"], b["col"])
        assert table.iloc[test.whole.row_of(test.seen[i][0])]["s2_time"] < str(
            table.iloc[test.whole.row_of(test.seen[i][1])]["s2_time"]
        )
        assert torch.equal(a["landcover"], b["landcover"])
    torch.manual_seed(0)
    drawn = [train[0]["pair"] for _ in range(8)]
    assert {a["turn"] == b["turn"] for a, b in drawn} == {True}
    batch = test.collate([test[0], test[1]])
    assert batch["earlier"].shape == batch["later"].shape == (2, 12, 16, 16)
    assert not torch.equal(batch["earlier"], batch["later"])
    fit(system)
    again = load_run(tmp_path / "run", "last")
    assert set(again.encode(batch)) == {"earlier", "later"}
    chips = test.whole
    assert set(again.encode(chips.collate([chips[0]]))) == {"s2"}


def test_grounds_seen_once_are_no_pairs(tmp_path):
    scenes = write_scenery(tmp_path / "once", 9, 32, seed=3).manifest
    config = override(Sample4Geo.Config(), settings(scenes, tmp_path, views="times", **{"data.sensors": ("s2",)}))
    with pytest.raises(InputError, match="no ground is seen twice by s2"):
        create_system(Sample4Geo, config).datasets()
    with pytest.raises(InputError, match="--data.sampler grid"):
        create_system(Sample4Geo, override(config, {"data.sampler": "random"})).datasets()
