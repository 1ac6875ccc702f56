"""An objective by name: what its signature asks for, and that choosing it is calling it."""

from types import SimpleNamespace

import pytest
import torch

from counterpoint.common import losses
from counterpoint.common.errors import InputError
from counterpoint.common.losses.choice import chosen_objective, form_of, parse_choice
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms, label_codes

OPTIONS = {
    "AMCL": "dim=6, bounds=(0.1, 2.0)",
    "AMCLBarlow": "batch=16, dim=6",
    "AMCLSimSiam": "dim=6",
    "FastCLIP": "n_samples=8",
    "HBI": "dim=6, heads=2, planes=2",
    "ISogCLR": "n_samples=8",
    "M3CoL": "dims=(6, 6), n_classes=4, hidden=4",
    "MLCD": "n_classes=5, dim=6, nearest=2, vectors='unread', scale=1.0",
    "SogCLR": "n_samples=8",
    "SimLAP": "n_classes=4, dim=6",
    "WMSE": "group_size=8",
    "WhitenedCSE": "groups=1, dim=6",
}
NAMES = [entry.name for entry in losses.objectives()]


def batch(n=16, dim=6, views=2):
    g = torch.Generator().manual_seed(0)
    z = [torch.randn(n, dim, generator=g, dtype=torch.float64) for _ in range(views)]
    clusters = torch.stack([torch.arange(n) % 5, (torch.arange(n) + 1) % 5], 1)
    return z, {"index": torch.arange(n) % 8, "label": torch.arange(n) % 4, "clusters": clusters}


@pytest.mark.parametrize("name", [n for n in NAMES if form_of(n) is not None])
def test_every_objective_that_encoders_can_serve_trains_by_its_name(name):
    options = OPTIONS.get(name, "")
    chosen = chosen_objective(f"{name}({options})").double()
    z, facts = batch()
    if chosen.form.kind == "tokens":
        z = [v.unflatten(0, (4, 4)) for v in z]
    z = [v.requires_grad_() for v in z]
    value = chosen(*z, **facts)
    value.backward()
    assert torch.isfinite(value)
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for v in z)


@pytest.mark.parametrize("name", [n for n in NAMES if form_of(n) is None])
def test_the_others_say_what_they_need(name):
    with pytest.raises(InputError, match=f"objective {name} needs "):
        chosen_objective(name)


def test_vectors_are_no_tokens_and_tokens_no_vectors():
    z, _ = batch()
    with pytest.raises(InputError, match="HBI needs the tokens of two views, and this system gives one vector of each"):
        chosen_objective("HBI(dim=6, heads=2)")(*z)
    with pytest.raises(InputError, match="DCL needs one vector of each view"):
        chosen_objective("DCL")(*(v.unflatten(0, (4, 4)) for v in z))


def test_classes_are_numbered_as_they_are_met_and_keep_their_numbers():
    chosen = chosen_objective("M3CoL(dims=(6, 6), n_classes=3, hidden=4)").objective
    assert chosen.numbers(torch.tensor([70, 30, 70])).tolist() == [1, 0, 1]
    assert chosen.numbers(torch.tensor([10, 30, 70])).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="n_classes=3"):
        chosen.numbers(torch.tensor([11]))
    with pytest.raises(ValueError, match="a label of every sample"):
        chosen.numbers(torch.tensor([-4]))


def test_heads_stand_between_the_embeddings_and_amcl():
    z, _ = batch()
    chosen = chosen_objective("AMCL(dim=6, heads=2)").double().objective
    torch.testing.assert_close(
        chosen(*z), chosen.objective(*(torch.stack([h(v) for h in chosen.heads.heads]) for v in z))
    )


def test_three_views_are_taken_together_or_two_by_two():
    z, facts = batch(views=3)
    together = chosen_objective("MultiViewNTXent(temperature=0.2)")
    assert together.joint
    torch.testing.assert_close(together(*z), losses.MultiViewNTXent(0.2)(*z))
    pairs = chosen_objective("NTXent(temperature=0.2)")
    expected = sum(losses.NTXent(0.2)(z[a], z[b]) for a, b in ((0, 1), (0, 2), (1, 2))) / 3
    torch.testing.assert_close(pairs(*z, **facts), expected)


def test_labels_reach_the_objectives_that_take_them_once_for_every_view():
    z, facts = batch()
    chosen = chosen_objective("SupCon(temperature=0.3)")
    torch.testing.assert_close(chosen(*z, **facts), losses.SupCon(0.3)(*z, label=facts["label"]))
    metrix = chosen_objective("Metrix")
    assert metrix.form.kind == "labelled"


def test_the_systems_temperature_is_the_default_and_the_choice_wins():
    z, _ = batch()
    value = chosen_objective("NTXent", temperature=0.7)(*z)
    torch.testing.assert_close(value, losses.NTXent(0.7)(*z))
    torch.testing.assert_close(chosen_objective("NTXent(temperature=0.1)", temperature=0.7)(*z), losses.NTXent(0.1)(*z))
    assert torch.isfinite(chosen_objective("VICReg", temperature=0.7)(*z))


def test_samples_without_a_label_are_alone_with_theirs():
    codes = label_codes(["a", "", None, "a", "b"], like=torch.arange(5))
    assert codes[0] == codes[3]
    assert len(set(codes.tolist())) == 4


class Hearing(torch.nn.Module):
    """Keeps what it is told of the samples."""

    def forward(self, *views, **known):
        self.known = known
        return torch.zeros(())


def test_the_published_objective_hears_only_what_its_system_says():
    z, facts = batch()
    published = Hearing()
    terms = contrast_terms(published, "nt_xent", {"a": z[0], "b": z[1]}, facts, group=facts["label"])
    assert list(terms) == ["nt_xent"]
    assert set(published.known) == {"group"}
    chosen = chosen_objective("DCL")
    assert list(contrast_terms(chosen, "nt_xent", {"a": z[0], "b": z[1]}, facts)) == ["dcl"]


def test_a_width_that_does_not_fit_is_said_with_the_choice_that_does():
    with pytest.raises(InputError, match=r"SimLAP was made for embeddings of width 256.* 'SimLAP\(dim=6\)'"):
        chosen_objective("SimLAP(n_classes=4)")(*batch()[0], label=batch()[1]["label"])


@pytest.mark.parametrize(
    "text", ["", "DCL(", "DCL(0.1)", "a.b", "DCL(**x)", "__import__('os')", "DCL(x=[i for i in 'a'])"]
)
def test_what_is_no_choice_is_refused_and_never_evaluated(text):
    with pytest.raises(InputError, match="give a name with its options by name|unknown"):
        parse_choice(text)


@pytest.mark.parametrize("name", ["DCL", "NTXent"])
def test_a_choice_counts_lengths_where_the_published_term_does(name):
    """A system that is ranked by inner products trains lengths, under whatever objective."""
    config = SimpleNamespace(objective=name)
    usual = chosen_objective(name).objective.normalize
    assert contrast_of(config, losses.InfoNCE(0.1)).objective.normalize == usual
    assert not contrast_of(config, losses.InfoNCE(0.1, normalize=False)).objective.normalize
    said = SimpleNamespace(objective=f"{name}(normalize=True)")
    assert contrast_of(said, losses.InfoNCE(0.1, normalize=False)).objective.normalize
