"""Bad pair mining: official per-pair losses, the written statistics, and flags on planted bad pairs."""

import json
import math
from pathlib import Path

import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import BadPairsConfig, create_system, fit, load_run, override
from counterpoint.common.trainers.bad_pairs import BadPairMiner
from counterpoint.timeseries.augment import permuted, scaled, time_warped
from counterpoint.timeseries.configs import DBPMSystemConfig
from counterpoint.timeseries.dbpm import DBPM
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients


def det(shape, a, b):
    n = torch.Size(shape).numel()
    return torch.sin(a * torch.arange(n, dtype=torch.float64) + b).reshape(shape)


def test_official_loss_of_every_pair():
    rows = NTXent(0.2).row_losses(det((5, 7), 0.37, 0.1), det((5, 7), 0.53, 1.3))
    expected = [5.366790877836247, 9.407921195913792, 8.897340918727433, 3.0536809377247125, 0.1373370747755036]
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def run_epochs(miner, table, batch=4):
    """Feed losses [epochs, pairs] in batches; returns the weighted ones."""
    out = []
    for epoch, losses in enumerate(table):
        parts = [
            miner(losses[i : i + batch], torch.arange(i, min(i + batch, len(losses))), epoch)
            for i in range(0, len(losses), batch)
        ]
        out.append(torch.cat(parts))
    return torch.stack(out)


def test_flags_statistics_and_weighted_losses_equal_the_official_training():
    """A noisy pair stays flagged, a faulty one heals; its code remembers losses, not weighted losses."""
    held = json.loads((Path(__file__).parent / "oracles" / "timeseries.json").read_text())["dbpm"]
    table, wanted = (torch.tensor(held[k], dtype=torch.float64) for k in ("losses", "weighted"))
    p = held["params"]
    config = BadPairsConfig(warmup=p["warm_epochs"], noisy=p["cut_np"], faulty=p["cut_fp"], normalized=False)
    miner = BadPairMiner(table.shape[1], config, p["epochs"])
    for epoch, losses in enumerate(table):
        weighted = miner(losses, torch.arange(len(losses)), epoch)
        torch.testing.assert_close(weighted, wanted[epoch], rtol=0, atol=1e-8)
        if epoch >= p["warm_epochs"]:
            found = [x.item() for x in miner.statistics()[1:]]
            assert found == pytest.approx(held["statistics"][epoch - p["warm_epochs"]], rel=0, abs=1e-8)
            noisy, faulty = (flags.nonzero().flatten().tolist() for flags in miner.flags())
            assert noisy == [4]
            assert faulty == ([11] if epoch == 3 else [])


def planted(epochs=5, pairs=200):
    generator = torch.Generator().manual_seed(0)
    table = 3 + 0.2 * torch.randn(epochs, pairs, generator=generator, dtype=torch.float64)
    table[:, 0], table[:, 1] = 0.5, 6.0
    return table


def test_warmup_changes_nothing_and_the_memory_holds_the_written_mean():
    miner, table = BadPairMiner(200, BadPairsConfig(warmup=5), epochs=8), planted()
    assert torch.equal(run_epochs(miner, table), table)
    miner.close(5)
    share = (1 + torch.arange(5, dtype=torch.float64)) / 8
    mean, mu, sigma = miner.statistics()
    torch.testing.assert_close(mean, (share[:, None] * table).mean(0))
    torch.testing.assert_close(mu, mean.mean())
    torch.testing.assert_close(sigma, mean.std(correction=0))


def test_planted_bad_pairs_are_flagged_and_weighted_down():
    miner, table = BadPairMiner(200, BadPairsConfig(warmup=3), epochs=5), planted()
    weighted = run_epochs(miner, table)
    noisy, faulty = miner.flags()
    assert noisy[0]
    assert faulty[1]
    assert noisy.sum() < 10
    assert faulty.sum() < 5
    assert (weighted[4, :2] < 0.1 * table[4, :2]).all()
    good = ~(noisy | faulty)
    assert torch.equal(weighted[4][good], table[4][good])


def test_remembering_weighted_losses_lets_a_faulty_pair_come_back():
    flagged = {}
    for remember in (True, False):
        miner = BadPairMiner(200, BadPairsConfig(warmup=3, remember_weighted=remember), epochs=5)
        run_epochs(miner, planted())
        flagged[remember] = bool(miner.flags()[1][1])
    assert flagged == {True: False, False: True}


def test_normalized_weights_stay_below_one_and_the_official_form_amplifies():
    """Card: at 2 sigma the official density exceeds 1 once sigma < 0.054."""
    sigma = 0.03
    losses = torch.full((100,), 1.0, dtype=torch.float64) + sigma * torch.tensor([-1.0, 1.0]).repeat(50)
    results = {}
    for normalized in (True, False):
        miner = BadPairMiner(101, BadPairsConfig(warmup=1, normalized=normalized), epochs=1)
        miner(torch.cat([losses, torch.tensor([1.0 - 10 * sigma], dtype=torch.float64)]), torch.arange(101), 0)
        miner.close(1)
        _, mu, spread = miner.statistics()
        two_sigma = (mu - 2 * spread).reshape(1)
        results[normalized] = miner.weights(two_sigma, torch.tensor([100])).item()
        expected = math.exp(-2) / (1.0 if normalized else spread.item() * math.sqrt(2 * math.pi))
        assert results[normalized] == pytest.approx(expected)
    assert results[True] < 1 < results[False]


@pytest.mark.parametrize(("deviations", "sigma"), [(2, 0.05399096651318806), (3, 0.0044318484119380075)])
def test_official_weight_of_a_borderline_pair_is_one_at_the_frozen_sigma(deviations, sigma):
    """Half the pairs at mu - sigma, half at mu + sigma: their deviation is sigma; the pair weighed lies further out."""
    losses = 1 + sigma * torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(50)
    miner = BadPairMiner(100, BadPairsConfig(warmup=1, normalized=False, noisy=0.5, faulty=0.5), epochs=1)
    miner(losses, torch.arange(100), 0)
    miner.close(1)
    far = torch.tensor([1 + deviations * sigma], dtype=torch.float64)
    assert miner.weights(far, torch.tensor([1])).item() == pytest.approx(1.0, rel=1e-9)


def test_weights_carry_no_gradient_and_evaluation_is_not_remembered():
    miner, table = BadPairMiner(200, BadPairsConfig(warmup=1), epochs=5), planted()
    run_epochs(miner, table[:2])
    losses = table[2].clone().requires_grad_()
    miner(losses, torch.arange(200), 2).sum().backward()
    torch.testing.assert_close(losses.grad, miner.weights(table[2], torch.arange(200)))
    count = miner.open_count.clone()
    miner.eval()
    assert torch.equal(miner(table[3], torch.arange(200), 3), table[3])
    assert torch.equal(miner.open_count, count)


def test_augmentations_do_what_their_names_say():
    torch.manual_seed(0)
    x = torch.randn(6, 50, 3)
    ratio = scaled(x) / x
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3, atol=1e-3)
    ratio = scaled(x, per="step") / x
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3, atol=1e-3)
    assert ratio[:, :, 0].std(1).min() > 0.5
    shuffled = permuted(x, 8)
    torch.testing.assert_close(shuffled.sort(1).values, x.sort(1).values)
    steps = torch.arange(50.0)[None, :, None].expand(6, 50, 3)
    warped = time_warped(steps, 0.4)
    rate = (warped[:, 30] - warped[:, 20]) / 10
    assert ((rate >= 0.6 - 1e-4) & (rate <= 1.4 + 1e-4)).all()
    assert rate.std() > 0.05


def test_dbpm_trains_and_its_memory_travels_in_the_run(tmp_path):
    windows = split_patients(
        ecg(patients=6, trials=2, windows=4, length=64), {"train": 0.34, "val": 0.33, "test": 0.33}
    )
    config = override(
        DBPMSystemConfig(),
        {
            "encoder": {"dim": 12, "hidden": 8, "depth": 3},
            "train": {"batch_size": 8, "max_epochs": 2, "tensorboard": False, "accelerator": "cpu", "monitor_every": 0,
                      "out": str(tmp_path / "run")},
            "mining.warmup": 1,
            "projection": 8,
        },
    )  # fmt: skip
    system = create_system(DBPM, config, windows)
    fit(system)
    seen = system.miner.total + system.miner.open_total
    assert (seen[: (windows.frame.split == "train").sum()] > 0).all()
    again = load_run(tmp_path / "run", "last")
    torch.testing.assert_close(again.miner.open_total, system.miner.open_total)
    torch.testing.assert_close(again.embed_windows(windows), system.embed_windows(windows))


class Plain(DBPM):
    """An instance-contrastive system that returns its rows and knows nothing of mining."""

    def losses(self, batch, embeddings):
        return {"nt_xent": self.objective.row_losses(embeddings["weak"], embeddings["strong"])}


class Scalar(Plain):
    """Another one, whose loss is one number."""

    def losses(self, batch, embeddings):
        return {"nt_xent": self.objective(embeddings["weak"], embeddings["strong"])}


@pytest.fixture(scope="module")
def windows():
    return split_patients(ecg(patients=6, trials=2, windows=4, length=64), {"train": 0.34, "val": 0.33, "test": 0.33})


MINING = {"warmup": 1, "noisy": 0.5, "faulty": 0.5}
COMMON = {
    "encoder": {"dim": 12, "hidden": 8, "depth": 3, "dropout": 0.0}, "projection": 8,
    "train": {"batch_size": 8, "max_epochs": 3, "tensorboard": False, "accelerator": "cpu", "monitor_every": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def built_in(windows, tmp_path_factory):
    changes = {"train.out": str(tmp_path_factory.mktemp("mined") / "run"), "mining": MINING}
    system = create_system(DBPM, override(override(DBPMSystemConfig(), COMMON), changes), windows)
    fit(system)
    return system


def plain(cls, windows, out, **changes):
    changes = {"train.out": str(out), "train.plugins": {"bad_pairs": MINING}, "mining": None, **changes}
    return create_system(cls, override(override(DBPMSystemConfig(), COMMON), changes), windows)


@pytest.mark.parametrize("micro", [None, 3])
def test_the_plug_in_equals_the_built_in_mining(tmp_path, windows, built_in, micro):
    system = plain(Plain, windows, tmp_path / "run", **{"train.micro_batch_size": micro})
    fit(system)
    torch.testing.assert_close(system.embed_windows(windows), built_in.embed_windows(windows))
    (miner,) = system.plugins["bad_pairs"].miners.values()
    known = built_in.miner.total
    torch.testing.assert_close(miner.total, known[: len(miner.total)], rtol=1e-5, atol=0)
    assert not known[len(miner.total) :].any()  # the plug-in's memory reaches as far as the training samples
    assert miner.flags()[0].any()


def test_the_plug_in_refuses_a_system_without_a_loss_per_sample(tmp_path, windows):
    with pytest.raises(InputError, match=r"bad_pairs weighs samples, and Scalar has no loss per sample .*\(nt_xent\)"):
        fit(plain(Scalar, windows, tmp_path / "run"))
