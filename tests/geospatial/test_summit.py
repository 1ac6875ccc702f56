"""SUMMIT's pseudo-labels are the official ones; a source run is adapted to other places without their labels."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.geospatial import pseudo_labels as labels
from counterpoint.geospatial.adaptation import segmenter_scores
from counterpoint.geospatial.scene_files import write_scenery
from counterpoint.geospatial.summit import Summit

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import batch_of, form

PIXELS, CLASSES, WIDTH = 60, 4, 3
_ = -100
# csimo005/SUMMIT e6fa287, xmuda/refine_pseudolabels.py, run on the inputs of `given`; HT with both sensors' tests
# against one another (the published call tests the second one against itself).
MEDIANS = ([0.776, 0.473, 0.448, 0.688], [0.625, 0.406, 0.404, 0.63], [0.552, 0.334, 0.353, 0.592])
WEIGHTED = [[0.05110293300230347, 0.22653429936769734, 0.45151027118494236, 0.27085249644505693],
            [0.7764227247332046, 0.1350257329868356, 0.04474914479103024, 0.04380239748892954]]  # fmt: skip
SURE = [2, 0, _, 0, 3, _, 3, 1, _, 2, 0, _, 0, 3, _, 3, 1, _, 2, 0, _, 0, 3, _, 3, 1, _, 2, 0, _, 0, 3, _, 3, 1, _, 2,
        0, _, 0, 3, _, 3, _, _, _, _, _, 0, 3, _, 3, _, 3, _, _, _, 0, 3, _]  # fmt: skip
AGREED = [2, 0, _, 0, 3, _, 3, 1, _, _, _, _, 0, _, _, 3, _, _, _, _, _, _, _, _, 3] + [_] * 35
ENTROPY = [2, 0, 3, 0, 3, 0, 3, 1, _, 2, 0, _, 0, 3, 0, 3, _, 3, 2, 0, _, 0, 3, 0, 3, _, 3, 1, _, _, 0, 3, 0, 3, 0, 3,
           _, _, _, 0, _, 0, 3, 0, 3, _, _, _, _, _, 0, 3, _, _, _, _, _, _, _, _]  # fmt: skip
TESTED = [2, 0, 3, 0, 3, 0, 3, 1, _, 2, 0, 3, 0, 3, 0, 3, _, 3, 2, 0, _, 0, 3, 0, 3, _, 3, 1, _, 3, 0, 3, 0, 3, 0, 3, 2,
          _, _, 0, 3, 0, 3, 0, 3, _, _, _, _, 3, 0, 3, _, _, _, _, _, _, _, _]  # fmt: skip
MEAN = [0.022792559901971376, 0.0580313202036748, 0.08541581355304109]
VARIANCE = [0.9418408541606056, 0.6825542243294799, 0.3249386775453764]
REJECTED = [27, 43]


def given():
    def probabilities(a, b, t):
        x = np.sin(a * np.arange(PIXELS * CLASSES) + b).reshape(PIXELS, CLASSES) * t
        e = np.exp(x - x.max(1, keepdims=True))
        return torch.from_numpy(e / e.sum(1, keepdims=True))

    def features(a, b):
        return torch.from_numpy(np.sin(a * np.arange(PIXELS * WIDTH) + b).reshape(PIXELS, WIDTH))

    return (probabilities(0.7, 0.1, 3.0), probabilities(0.71, 0.12, 2.0)), (features(0.37, 0.2), features(0.53, 0.4))


def test_sure_agreed_and_weighted_labels_are_the_official_ones():
    (one, two), _rest = given()
    fused = labels.entropy_weighted(one, two)
    medians = [labels.class_medians(labels.confidence_counts(p)) for p in (one, two, fused)]
    assert [m.tolist() for m in medians] == [list(m) for m in MEDIANS]
    assert torch.allclose(fused[:2], torch.tensor(WEIGHTED, dtype=torch.float64), atol=1e-12)
    sure = labels.certain(one, medians[0])
    assert sure.tolist() == SURE
    assert labels.agreed_labels(sure, labels.certain(two, medians[1])).tolist() == AGREED
    assert labels.certain(fused, medians[2]).tolist() == ENTROPY


def test_moments_and_the_likelihood_ratio_test_are_the_official_ones():
    (one, two), features = given()
    entropy, guesses = torch.tensor(ENTROPY), (one.argmax(1), two.argmax(1))
    moments = [labels.class_moments(labels.class_sums(f, entropy, CLASSES)) for f in features]
    assert moments[0][0][1].tolist() == pytest.approx(MEAN, rel=1e-9)
    assert moments[0][1][1].tolist() == pytest.approx(VARIANCE, rel=1e-9)
    first = labels.rejected(features[0], *guesses, moments[0], 0.5)
    second = labels.rejected(features[1], *guesses[::-1], moments[1], 0.5)
    assert first.nonzero().flatten().tolist() == REJECTED
    assert labels.tested(entropy, guesses, (first, second)).tolist() == TESTED


def test_counts_and_sums_of_parts_add_up():
    (one, _two), (features, _rest) = given()
    whole, entropy = labels.confidence_counts(one), torch.tensor(ENTROPY)
    assert torch.equal(labels.confidence_counts(one[:17]) + labels.confidence_counts(one[17:]), whole)
    parts = [labels.class_sums(features[s], entropy[s], CLASSES) for s in (slice(0, 17), slice(17, None))]
    assert torch.allclose(sum(parts), labels.class_sums(features, entropy, CLASSES))


def test_logarithms_tell_widefeatures_apart_where_products_of_variances_vanish():
    features, classes = torch.zeros(2, 400, dtype=torch.float64), torch.tensor([0, 1])
    mean = torch.stack([torch.zeros(400), torch.full((400,), 0.1)]).double()
    variance = torch.full((2, 400), 1e-3, dtype=torch.float64)
    found = labels.rejected(features, classes, classes.flip(0), (mean, variance))
    assert found.tolist() == [False, True]


def system(source="", **changes):
    torch.manual_seed(0)
    config = override(Summit.Config(), {"filters": 2, "source": source, **changes})
    return Summit(config, form(scaling="standard").assets().replace(codes=[1, 2, 5]))


def pair(n=3, size=16):
    generator = torch.Generator().manual_seed(1)
    made = batch_of({"s1": torch.randn(n, 2, size, size, generator=generator),
                     "s2": torch.randn(n, 12, size, size, generator=generator)})  # fmt: skip
    return {**made, "landcover": torch.randint(0, 7, (n, size, size), generator=generator)}


def test_segmenters_learn_alone_over_what_each_sees():
    one, batch = system(), pair()
    batch["s1_valid"][:, :8] = False
    z = one.embed(batch)
    known = torch.isin(batch["landcover"], torch.tensor([1, 2, 5]))
    wanted = 0.0
    for sensor in ("s1", "s2"):
        where = known & batch[f"{sensor}_valid"]
        logs = z[f"{sensor}_logits"].log_softmax(1)
        number = torch.tensor([0, 0, 1, 0, 0, 2, 0])[batch["landcover"]]
        wanted += -logs.gather(1, number[:, None])[:, 0][where].mean()
    assert torch.allclose(one.losses(batch, z)["segmentation"], wanted, atol=1e-6)
    assert not one.segmenters["s1"].second.weight.requires_grad


def test_the_adaptation_is_its_equation_and_leaves_what_came_as_it_was():
    one, batch = system("somewhere", fusion="entropy"), pair()
    batch["s2_valid"][0] = False
    one.train()
    assert not one.came.training
    probabilities, features = one.guessed(batch)
    seen = one.seen(batch)
    parts = [probabilities[s][seen] for s in ("s1", "s2")]
    fused = labels.entropy_weighted(*parts)
    one.counts += torch.stack([labels.confidence_counts(p) for p in (*parts, fused)])
    sure = one.confident(probabilities)
    one.sums += torch.stack([labels.class_sums(features[s][seen], sure[seen], 3) for s in ("s1", "s2")])
    label, z = one.pseudo_labels(batch), one.embed(batch)
    assert (label[: 16 * 16] == labels.IGNORE).all()
    assert (label >= 0).any()
    found = one.losses(batch, z)
    pseudo = cross = 0.0
    for sensor, other in (("s1", "s2"), ("s2", "s1")):
        logs = z[f"{sensor}_logits"].log_softmax(1).movedim(1, -1).reshape(-1, 3)
        pseudo -= logs[label >= 0].gather(1, label[label >= 0][:, None]).mean()
        p = z[f"{other}_logits"].softmax(1)
        apart = (p * (p.log() - z[f"{sensor}_second"].log_softmax(1))).sum(1).flatten()
        cross += apart[seen].mean()
    assert torch.allclose(found["pseudo"], pseudo, atol=1e-5)
    assert torch.allclose(found["cross"], cross, atol=1e-5)
    sum(found.values()).backward()
    assert all(p.grad is None for p in one.came.parameters())


def test_a_run_is_adapted_to_places_without_maps(tmp_path):
    old = write_scenery(tmp_path / "old", 9, 32, seed=3).manifest
    new = write_scenery(tmp_path / "new", 9, 32, seed=8).manifest
    small = {"data.size": 16, "filters": 2, "train.batch_size": 8, "train.max_epochs": 1, "train.tensorboard": False}
    at = {"data.manifest": str(old), "train.out": str(tmp_path / "source")}
    fit(create_system(Summit, override(Summit.Config(), {**small, **at})))
    at = {"data.manifest": str(new), "train.out": str(tmp_path / "adapted"), "source": str(tmp_path / "source"),
          "fusion": "entropy"}  # fmt: skip
    config = override(Summit.Config(), {**small, **at, "train.max_epochs": 2})
    made = create_system(Summit, config)
    assert made.assets.hash == load_run(tmp_path / "source").assets.hash
    fit(made)
    adapted = load_run(tmp_path / "adapted", "last")
    before = load_run(tmp_path / "source").segmenters.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in adapted.came.state_dict().items() if "second" not in k)
    assert torch.equal(adapted.came["s1"].second.weight, adapted.came["s1"].head.weight)
    chips = made.datasets().train
    pixels = len(chips) * 16 * 16
    assert adapted.counts.sum((1, 2)).tolist() == [pixels] * 3
    found = segmenter_scores(OpenRun.of(adapted))
    assert "land cover by the segmenters, joint, as they came" in found
    assert 0 < found["pseudo-labels"].metrics["coverage"] <= 1
    with pytest.raises(InputError, match="--filters is 3"):
        create_system(Summit, override(config, {"filters": 3}))
