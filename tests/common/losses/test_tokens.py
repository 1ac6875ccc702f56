"""Objectives on tokens and on maps against their equations written out densely in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from counterpoint.common.losses import (
    HBI,
    NortonParagraph,
    PixelPropagation,
    PixPro,
    SlotCon,
    banzhaf_interaction,
    bucket_transport,
    coalition_value,
    crop_cells,
    overlap,
    token_similarity,
)


def unit(z):
    return F.normalize(z, dim=-1)


def test_the_bucket_takes_what_does_not_match():
    s = torch.eye(4, dtype=torch.float64)
    s[3, 3] = 0.0  # this clip has no caption
    plan = bucket_transport(s, 0.5, epsilon=0.05)
    assert (plan.sum(1)[:3] > 0.98).all()
    assert plan[3].sum() < 1e-3
    everyone = bucket_transport(torch.zeros(4, 4, dtype=torch.float64), 0.5, epsilon=0.05)
    assert everyone.sum() < 0.02  # there is room for all of them
    torch.testing.assert_close(plan.T, bucket_transport(s.T, 0.5, epsilon=0.05), rtol=0, atol=1e-6)


def test_norton_paragraph_finds_clips_whose_captions_are_shifted(make):
    """Captions come two clips late and the first two clips are silent: re-aligned, the paragraphs still match."""
    clips = make.z(5, 8, 16)
    captions = torch.cat([make.z(5, 2, 16), clips[:, :6]], 1)
    loss = NortonParagraph()
    assert loss(clips, captions) < 0.1 * loss(clips, captions.roll(1, 0))
    in_order = torch.einsum("itd,jtd->ij", unit(clips), unit(captions))  # without transport nothing is left of them
    assert (in_order.argmax(1) == torch.arange(5)).sum() < 5


def test_token_similarity_tends_to_the_maximum_and_ignores_padding(make):
    a, b = make.unit(2, 3, 5), make.unit(4, 6, 5)
    real_a, real_b = torch.ones(2, 3, dtype=torch.bool), torch.ones(4, 6, dtype=torch.bool)
    s = torch.einsum("atd,bvd->abtv", a, b)
    there, back = token_similarity(a, real_a, b, real_b, alpha=1e-4)
    torch.testing.assert_close(there, s.amax(3).mean(2), rtol=0, atol=1e-3)
    torch.testing.assert_close(back, s.amax(2).mean(2), rtol=0, atol=1e-3)
    padded = torch.cat([a, make.unit(2, 2, 5)], 1), torch.cat([real_a, ~real_a[:, :2]], 1)
    for one, other in zip(token_similarity(*padded, b, real_b), token_similarity(a, real_a, b, real_b), strict=True):
        torch.testing.assert_close(one, other)
    nothing = token_similarity(a, ~real_a, b, real_b)
    assert all((part == 0).all() for part in nothing)


def test_norton_paragraph_needs_the_tokens_of_both_sides(make):
    x, tokens = make.z(2, 3, 4), make.z(2, 3, 5, 4)
    with pytest.raises(ValueError, match="frames and words, or neither"):
        NortonParagraph()(x, x, frames=tokens)
    with pytest.raises(ValueError, match="captions must be"):
        NortonParagraph()(x, x[:, :2])


def test_banzhaf_interaction_by_definition(make):
    s = make.z(2, 2, 3)
    wanted = torch.zeros(2, 2, 3, dtype=s.dtype)
    for t, u in itertools.product(range(2), range(3)):
        others = [k for k in range(5) if k not in (t, 2 + u)]
        for size in range(4):
            for coalition in itertools.combinations(others, size):
                for pair, sign in (((t, 2 + u), 1), ((t,), -1), ((2 + u,), -1), ((), 1)):
                    present = torch.zeros(1, 5, dtype=torch.bool)
                    present[0, list(coalition + pair)] = True
                    wanted[:, t, u] += sign * coalition_value(s, present)[0] / 8
    torch.testing.assert_close(banzhaf_interaction(s), wanted)


def test_sampled_banzhaf_is_unbiased(make):
    s, generator = make.z(3, 4), torch.Generator().manual_seed(0)
    exact = banzhaf_interaction(s)
    draws = torch.stack([banzhaf_interaction(s, samples=50, generator=generator) for _ in range(200)])
    error = draws.std(0) / math.sqrt(200)
    assert ((draws.mean(0) - exact).abs() < 4.5 * error).all()
    assert banzhaf_interaction(s, samples=20000, generator=generator).sub(exact).abs().max() < 0.1


def test_hbi_without_levels_is_the_weighted_token_contrast(make, same_gradients):
    torch.manual_seed(0)
    loss = HBI(5, 0.2, ratios=(), skl=0.7, planes=2, block=3).double()
    level = loss.levels[0]

    def written(x, y):
        w_x, w_y = (torch.softmax(net(z)[..., 0], 1) for net, z in ((level.x_weight, x), (level.y_weight, y)))
        s = torch.einsum("itd,jud->ijtu", unit(x), unit(y))
        score = ((s.amax(3) * w_x[:, None]).sum(2) + (s.amax(2) * w_y[None]).sum(2)) / 2 / 0.2
        label, own = torch.arange(4), unit(x) @ unit(y).mT
        teacher, student = banzhaf_interaction(own.detach()), level.student(own)
        kl = sum(F.kl_div(student.log_softmax(d), teacher.softmax(d), reduction="none").mean() for d in (1, 2))
        return (F.cross_entropy(score, label) + F.cross_entropy(score.T, label)) / 2 + 0.7 * kl

    same_gradients(loss, written, make.z(4, 3, 5), make.z(4, 2, 5))


def test_hbi_score_of_retrieval_does_not_see_padding(make):
    torch.manual_seed(0)
    loss, x, y = HBI(4, heads=1, planes=2).double(), make.z(3, 5, 4), make.z(2, 6, 4)
    mask = torch.arange(5) < torch.tensor([5, 3, 4])[:, None]
    score = loss.similarity(x, y, x_mask=mask)
    assert score.shape == (3, 2)
    x = torch.where(mask[..., None], x, 100 * x)
    torch.testing.assert_close(loss.similarity(x, y, x_mask=mask), score)
    own = loss.similarity(x[1:2, :3], y)  # padding scores 0, which a negative maximum yields to: as released
    assert own.shape == (1, 2)


def test_pixpro(make, same_gradients):
    maps = [make.z(2, 5, 3, 3) for _ in range(4)]
    centres = [torch.rand(2, 3, 3, 2, dtype=torch.float64, generator=make.generator) for _ in range(2)]
    cells = [torch.tensor([0.3, 0.5], dtype=torch.float64), torch.tensor([0.4, 0.2], dtype=torch.float64)]

    def written(y1, y2):
        total = 0.0
        for y, x, here, there in ((y1, maps[3], 0, 1), (y2, maps[2], 1, 0)):
            for n in range(2):
                agreement, near = 0.0, 0
                for i, j in itertools.product(itertools.product(range(3), range(3)), repeat=2):
                    distance = (centres[here][n][i] - centres[there][n][j]).norm() / max(cells[0][n], cells[1][n])
                    if distance < 0.7:
                        near += 1
                        agreement = agreement + F.cosine_similarity(y[n, :, *i], x[n, :, *j], dim=0)
                total = total - 2 * agreement / (near + 1e-6) / 2
        return total

    same_gradients(lambda y1, y2: PixPro()(y1, y2, maps[2], maps[3], *centres, *cells), written, *maps[:2])


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_pixel_propagation(make, layers):
    layer, x = PixelPropagation(4, power=2.0, layers=layers).double().eval(), make.z(1, 4, 2, 3)
    g, flat = F.normalize(layer.transform(x)[0].flatten(1), dim=0), x[0].flatten(1)
    wanted = torch.stack(
        [
            sum(F.cosine_similarity(flat[:, i], flat[:, j], dim=0).clamp_min(0) ** 2 * g[:, j] for j in range(6))
            for i in range(6)
        ],
        1,
    )
    torch.testing.assert_close(layer(x)[0].flatten(1), wanted)


def test_a_mirrored_crop_has_its_cells_in_reverse():
    box = torch.tensor([[2.0, 1.0, 10.0, 5.0]])
    centres, diagonal = crop_cells(box, 2, 4)
    mirrored, same = crop_cells(box[:, [2, 1, 0, 3]], 2, 4)
    torch.testing.assert_close(mirrored, centres.flip(2))
    torch.testing.assert_close(diagonal, same)
    torch.testing.assert_close(centres[0, 1, 3], torch.tensor([9.0, 4.0]))


def test_overlap_shows_the_same_place_of_both_crops():
    """Maps that hold their cells' places in the image: after alignment both crops name the same places."""
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([[3.0, 2.0, 9.0, 10.0]])
    shared = torch.tensor([[3.0, 2.0, 8.0, 8.0]])
    flip = torch.tensor([False]), torch.tensor([True])
    found = []
    for box, mirrored in zip(boxes, flip, strict=True):
        maps = crop_cells(box, 16, 16)[0].permute(0, 3, 1, 2)
        size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        part = (shared - box[:, :2].repeat(1, 2)) / size
        if mirrored:
            maps, part = maps.flip(-1), torch.stack([1 - part[:, 2], part[:, 1], 1 - part[:, 0], part[:, 3]], 1)
        found.append(overlap(maps, part, mirrored))
    inside = [m[..., 1:-1, 1:-1] for m in found]  # the outermost half cell of a crop is cut off at its edge
    torch.testing.assert_close(*inside, rtol=0, atol=1e-4)
    torch.testing.assert_close(inside[0], crop_cells(shared, 16, 16)[0].permute(0, 3, 1, 2)[..., 1:-1, 1:-1])


def slotcon(**settings):
    return SlotCon(5, 4, predictor=nn.Identity(), **settings).double()


def test_slotcon_without_boxes_compares_whole_maps(make):
    maps, whole = [make.z(2, 5, 3, 3) for _ in range(4)], torch.tensor([[0.0, 0, 1, 1]] * 2, dtype=torch.float64)
    loss = slotcon().eval()
    torch.testing.assert_close(loss(*maps), loss(*maps, box1=whole, box2=whole))


def test_slotcon_states_move_in_training_only(make):
    loss, maps = slotcon(), [make.z(2, 5, 3, 3) for _ in range(4)]
    with torch.no_grad():
        loss.prototypes.copy_(make.z(4, 5))
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss.eval()(*maps)
    for key, value in loss.state_dict().items():
        torch.testing.assert_close(value, before[key])
    loss.train()(*maps, momentum=0.25)
    wanted = 0.25 * before["teacher_prototypes"] + 0.75 * before["prototypes"]
    torch.testing.assert_close(loss.teacher_prototypes, wanted)
    pixels = torch.cat(maps[2:]).flatten(2).mT.flatten(0, 1)
    torch.testing.assert_close(loss.centre, 0.1 * (unit(pixels) @ unit(wanted).T).mean(0))


def test_slotcon_predictor_is_the_papers():
    loss = SlotCon(6, 4, hidden=8)
    kinds = [type(m).__name__ for m in loss.predictor]
    assert kinds == ["Linear", "BatchNorm1d", "GELU", "Linear", "BatchNorm1d", "GELU", "Linear"]
    assert [(m.in_features, m.out_features) for m in loss.predictor if isinstance(m, nn.Linear)] == [
        (6, 8), (8, 8), (8, 6)
    ]  # fmt: skip


def test_slotcon_learns_the_two_regions_of_an_image(make):
    """Free maps, two regions of noisy directions: grouping ends with one prototype per region, both in use."""
    torch.manual_seed(0)
    loss = SlotCon(4, 2, predictor=nn.Identity(), centre_momentum=0.9)
    region = (torch.arange(6) >= 3).expand(6, 6)
    ideal = torch.nn.functional.one_hot(region.long(), 4).permute(2, 0, 1).float()
    optimizer = torch.optim.Adam([loss.prototypes], 0.05)
    for _ in range(60):
        maps = [ideal + 0.3 * make.z(4, 4, 6, 6).float() for _ in range(2)]
        optimizer.zero_grad()
        loss(*maps, *maps).backward()
        optimizer.step()
    best = (unit(loss.prototypes.detach()) @ ideal.flatten(1)).argmax(0)
    assert set(best[region.flatten()].tolist()) | set(best[~region.flatten()].tolist()) == {0, 1}
    assert len(set(best[region.flatten()].tolist())) == len(set(best[~region.flatten()].tolist())) == 1
