"""The system: stages, losses against their equations, training end to end, and what a run leaves."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from counterpoint.audio_speech.audio_sheet import AudioSheet, ShortEpochs
from counterpoint.audio_speech.cli import vertical
from counterpoint.audio_speech.configs import AudioSheetConfig, Rendition
from counterpoint.audio_speech.demo import judge_retrieval, summary
from counterpoint.audio_speech.gallery import caption
from counterpoint.audio_speech.identify import protocols
from counterpoint.audio_speech.models import _eigenvectors, _inverse_root, batch_cca
from counterpoint.audio_speech.synth import synthesise
from counterpoint.common.data import collate
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.losses import TripletHinge
from counterpoint.common.runs.neighbours import Question
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override


@pytest.fixture
def system(small_data, snippets, tmp_path) -> AudioSheet:
    """A tiny audio-sheet over the test's pieces."""
    config = override(AudioSheetConfig(), AudioSheetConfig.presets["small"])
    config = override(config, {
        "channels": [4, 4, 8, 8], "head_hidden": 16, "steps_per_epoch": 2, "train.out": str(tmp_path / "run"),
        "train.max_epochs": 2, "train.batch_size": 8, "train.accelerator": "cpu", "train.tensorboard": False,
        "sheet_stage.max_steps": 2, "sheet_stage.batch_size": 8, "audio_stage.max_steps": 2,
        "audio_stage.batch_size": 8, "cca_pairs": 64,
    })  # fmt: skip
    return create_system(AudioSheet, replace(config, data=small_data)).use(snippets)


def batch_of(dataset, count: int = 6) -> dict:
    return collate([dataset[i * 7] for i in range(count)])


def test_the_paper_s_sizes_are_the_defaults():
    config = AudioSheetConfig()
    assert (config.channels, config.dim, config.head_hidden, config.ssl_temperature) == ((24, 48, 96, 96), 32, 512, 0.5)
    assert (config.sheet_stage.lr, config.sheet_stage.batch_size, config.sheet_stage.max_epochs) == (5e-4, 256, 180)
    assert (config.audio_stage.lr, config.audio_stage.batch_size, config.audio_stage.max_epochs) == (1e-3, 128, 300)
    assert (config.optim.lr, config.optim.weight_decay, config.train.batch_size) == (4e-4, 1e-5, 128)
    heads = AudioSheet(config).heads["sheet"]
    assert [p.shape for p in heads.parameters() if p.ndim == 2] == [(512, 32), (32, 512)]


def test_unimodal_stages_teach_one_tower_and_the_last_stage_both(system):
    sheet, audio, align = system.stages()
    assert [s.name for s in (sheet, audio, align)] == ["sheet", "audio", "align"]
    for stage, moved in ((sheet, {"sheet"}), (audio, {"audio"}), (align, {"sheet", "audio"})):
        system.begin_stage(stage, 10)
        live = {n for n, p in system.named_parameters() if p.requires_grad}
        assert {n.split(".")[1] for n in live if n.startswith("towers.")} == moved
        assert any(n.startswith("heads.") for n in live) == (stage is not align)
    none = override(system.config, {"sheet_stage.max_steps": 0, "sheet_stage.max_epochs": 0})
    assert [s.name for s in AudioSheet(none).stages()] == ["audio", "align"]


def test_the_unimodal_loss_is_nt_xent_over_two_views(system, snippets):
    system.begin_stage(system.stages()[0], 10)
    batch = batch_of(snippets.train)
    torch.manual_seed(0)
    embeddings = system.embed(batch)
    loss = system.losses(batch, embeddings)["nt_xent"].mean()
    z = torch.nn.functional.normalize(torch.cat(list(embeddings.values())), dim=1)
    n = len(z) // 2
    terms = []
    for i in range(2 * n):
        scores = z @ z[i] / 0.5
        others = torch.cat([scores[:i], scores[i + 1 :]])
        terms.append(torch.logsumexp(others, 0) - scores[(i + n) % (2 * n)])
    assert torch.allclose(loss, torch.stack(terms).mean(), atol=1e-5)
    assert not torch.allclose(*embeddings.values(), atol=1e-3), "two views differ"


def test_the_cross_modal_loss_is_symmetric_cross_entropy(system, snippets):
    system.begin_stage(system.stages()[-1], 10)
    system.eval()
    batch = batch_of(snippets.test, 3)
    embeddings = system.embed(batch)
    loss = system.losses(batch, embeddings)["info_nce"].mean()
    s, a = (torch.nn.functional.normalize(embeddings[m], dim=1) for m in ("sheet", "audio"))
    logits = s @ a.T / system.config.temperature
    target = torch.arange(3)
    expected = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    assert torch.allclose(loss, expected / 2, atol=1e-4)


def test_the_hinge_behind_the_batch_s_cca_is_the_official_one():
    """Value and gradients through covariances, roots and eigenvectors, frozen from luisfvc/ucasr."""
    held = json.loads((Path(__file__).parent / "oracles" / "hinge_cca.json").read_text())
    x, y = (torch.tensor(held["inputs"][k], dtype=torch.float64, requires_grad=True) for k in "ab")
    found = batch_cca(x, y)
    loss = TripletHinge(held["params"]["margin"])(found["x"][0], found["y"][0])
    assert loss.item() == pytest.approx(held["value"], rel=0, abs=1e-8)
    loss.backward()
    for leaf, k in ((x, "a"), (y, "b")):
        torch.testing.assert_close(
            leaf.grad, torch.tensor(held["gradients"][k], dtype=torch.float64), atol=1e-8, rtol=0
        )


def test_the_batch_s_cca_has_gradients_where_features_are_few():
    """Dead features give eigenvalues that are equal, at which the gradient through eigenvectors is 0 / 0."""
    made = torch.Generator().manual_seed(0)
    x, y = (torch.randn(80, 16, generator=made, dtype=torch.float64) for _ in "xy")
    x[:, 5:], y[:, 3:] = 0.0, 0.0
    x.requires_grad_()
    found = batch_cca(x, y)
    TripletHinge(0.6)(found["x"][0], found["y"][0]).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[:, :5].abs().max() > 0


def test_gradients_through_roots_and_eigenvectors_are_those_of_finite_differences():
    made = torch.Generator().manual_seed(1)
    root = torch.randn(5, 5, generator=made, dtype=torch.float64, requires_grad=True)

    def whitened(a):
        return _inverse_root(a @ a.T + torch.eye(5, dtype=a.dtype))

    def projector(a):
        return _eigenvectors(a @ a.T)[:, -2:] @ _eigenvectors(a @ a.T)[:, -2:].T

    assert torch.autograd.gradcheck(whitened, (root,))
    assert torch.autograd.gradcheck(projector, (root,))


def test_the_published_alignment_is_the_hinge_and_its_projection_is_the_batch_s(system, snippets):
    assert AudioSheetConfig().alignment == "hinge"
    hinge = create_system(AudioSheet, override(system.config, {"alignment": "hinge", "cca_pairs": 0})).use(snippets)
    hinge.begin_stage(hinge.stages()[-1], 10)
    batch = batch_of(snippets.pairs, 80)
    hinge.train()
    embeddings = hinge.embed(batch)
    terms = hinge.losses(batch, embeddings)
    assert list(terms) == ["hinge"]
    terms["hinge"].backward()
    assert all(torch.isfinite(p.grad).all() for t in hinge.towers.values() for p in t.parameters())
    projected = batch_cca(embeddings["sheet"], embeddings["audio"])["x"][0].float()
    torch.testing.assert_close(hinge.cca(embeddings["sheet"], "x"), projected, rtol=1e-3, atol=1e-4)
    few = batch_of(snippets.pairs, 4)
    with pytest.raises(InputError, match=r"takes more than 64 pairs .*got 4: raise train\.batch_size"):
        hinge.losses(few, hinge.embed(few))
    hinge.eval()
    embeddings = hinge.embed(batch)
    value = hinge.losses(batch, embeddings)["hinge"]
    assert value.item() == pytest.approx(
        TripletHinge()(hinge.cca(embeddings["sheet"], "x"), hinge.cca(embeddings["audio"], "y")).item(), rel=1e-5
    )


def test_another_performance_of_the_same_onset_is_no_negative(system, snippets):
    system.begin_stage(system.stages()[-1], 10)
    system.eval()
    same = collate([snippets.test[4], snippets.unseen[4]])
    assert system.losses(same, system.embed(same))["info_nce"].abs().max() == 0.0, "nothing is left to be told apart"
    other = collate([snippets.test[4], snippets.unseen[9]])
    assert system.losses(other, system.embed(other))["info_nce"].min() > 0.0


def test_training_end_to_end_leaves_a_run_that_loads_and_is_judged(system, snippets):
    before = {n: p.clone() for n, p in system.named_parameters()}
    result = fit(system)
    moved = {n for n, p in system.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith("towers.sheet") for n in moved)
    assert any(n.startswith("towers.audio") for n in moved)
    assert math.isfinite(result.metrics["val/loss"])
    loaded = load_run(result.run_dir, "last").use(snippets)
    assert loaded.cca.correlations[0] > 0, "the projection is fitted before the validation and kept with the weights"
    vectors, again = (encode_rows(s, snippets.test, batch_size=100).vectors for s in (system, loaded))
    assert torch.equal(vectors["sheet"], again["sheet"])
    assert torch.allclose(vectors["audio"].norm(dim=1), torch.ones(24), atol=1e-5)
    found = judge_retrieval(vectors, snippets.test)
    assert set(found) == {"audio -> sheet", "sheet -> audio", "piece, audio -> sheet", "piece, sheet -> audio"}
    text = "\n".join(summary({"seen": found}))
    assert "pool of 24" in text
    assert "chance" in text
    json.dumps({k: v.as_dict() for k, v in found.items()})
    assert set(protocols(OpenRun(system, {"test": snippets.test}))) == {
        "piece identification audio -> sheet", "piece identification sheet -> audio"
    }  # fmt: skip


def test_an_untrained_network_stands_beside_the_piece_identification_and_collapse_is_named(system, snippets):
    from copy import deepcopy

    from counterpoint.audio_speech.cli import vertical
    from counterpoint.common.runs.measure import lines_of, measure, measure_untrained

    def told(model):
        run = OpenRun(model.eval(), {"test": snippets.test}, limit=24)
        found, beside = measure(vertical, run, n_boot=10), measure_untrained(vertical, run, (), 0)
        return found, beside, "\n".join(lines_of(found, beside))

    healthy, beside, text = told(deepcopy(system))
    values = {(name, metric): i.value for name, metric, i, _ in beside.figures()}
    assert set(values) == {(name, metric) for name, metric, *_ in healthy.figures()}
    row = next(line for line in text.splitlines() if line.startswith("piece identification audio -> sheet  MRR"))
    assert row.split()[-3] == f"{values['piece identification audio -> sheet', 'MRR']:.3g}"
    assert "COLLAPSED" not in text
    flat = deepcopy(system)
    for parameter in flat.parameters():
        parameter.data.zero_()
    assert "COLLAPSED: the embeddings of all 24 samples are" in told(flat)[2]


def test_a_recording_is_answered_with_bars_and_its_windows_vote_alike_however_many_show(system, snippets, tmp_path):
    run = fit(system).run_dir
    piece = snippets.test.pieces[snippets.test.moments[0].piece]
    wave = synthesise(piece.engraving.notes, Rendition("piano"), 22050, 1)[: 13 * 22050]
    soundfile.write(tmp_path / "take.wav", wave, 22050)
    question = Question(vertical, run, "last", "test", None, None)
    asked = {"id": None, "file": tmp_path / "take.wav", "text": None, "source": None, "to": None, "kind": "exact"}
    few, more = (question.ask(top=top, **asked) for top in (1, 6))
    assert (few.source, few.to, few.windows) == ("audio", "sheet", 5)
    assert (few.ids, few.votes, few.elected) == (more.ids[:1], more.votes[:1], more.elected)
    assert sum(share for _, share in more.elected) <= 1.0 + 1e-9
    for place, words, moment in zip(more.places, more.captions, more.moments):
        assert words == caption(question.dataset[int(question.store.frame["sample"].iat[place])], "sheet")
        assert re.search(r", bars? \d+", words)
        assert re.fullmatch(r"take\.wav, 0:\d\d-0:\d\d", moment)
    assert caption(few.sample, "audio") == few.moments[0], "the page shows the window that found the first answer"


def test_one_modality_alone_can_be_encoded(system, snippets):
    system.eval()
    batch = batch_of(snippets.test, 3)
    both = system.encode(batch)
    alone = system.encode({"audio": batch["audio"]})
    assert list(alone) == ["audio"]
    assert torch.allclose(alone["audio"], both["audio"])
    assert list(system.encode(batch, "sheet")) == ["sheet"]


def test_cca_is_fitted_on_training_pairs_and_kept_with_the_weights(system, snippets):
    plain = encode_rows(system, snippets.test, batch_size=100).vectors
    system.fit_cca(pairs=64)
    assert (system.cca.correlations[0] > 0).item()
    fitted = encode_rows(system, snippets.test, batch_size=100).vectors
    assert not torch.allclose(plain["sheet"], fitted["sheet"])
    other = AudioSheet(system.config)
    other.load_state_dict(system.state_dict())
    loaded = encode_rows(other, snippets.test, batch_size=100).vectors
    assert torch.allclose(loaded["sheet"], fitted["sheet"], atol=1e-6)


def test_a_choice_that_compares_tokens_is_given_the_towers_places(system, snippets):
    chosen = override(system.config, {"objective": "HBI(dim=32, heads=2, planes=2)"})
    hbi = create_system(AudioSheet, chosen).use(snippets)
    hbi.begin_stage(hbi.stages()[-1], 10)
    batch = batch_of(snippets.pairs, 4)
    tokens = hbi.embed(batch)
    assert {k: v.ndim for k, v in tokens.items()} == {"sheet": 3, "audio": 3}
    terms = hbi.losses(batch, tokens)
    assert list(terms) == ["hbi"]
    terms["hbi"].backward()
    assert all(p.grad is not None for t in hbi.towers.values() for p in t.parameters())
    hbi.eval()
    torch.testing.assert_close(hbi.towers["sheet"](hbi.view(batch, "sheet")), hbi.embed(batch)["sheet"].mean(1))
    assert hbi.encode(batch)["sheet"].ndim == 2


def test_short_epochs_differ_and_resume():
    sampler = ShortEpochs(20, 4, seed=1, steps=2)
    first, second = [list(b) for b in sampler], [list(b) for b in sampler]
    assert len(first) == len(second) == 2
    assert first != second
    again = ShortEpochs(20, 4, seed=1, steps=2)
    again.load_state_dict({"epoch": 1, "batch": 1, "seed": 1})
    assert [list(b) for b in again] == second[1:]


def test_the_registration_names_things_that_exist():
    entry = vertical.systems[0]
    assert resolve(entry.config) is AudioSheetConfig
    assert resolve(entry.system) is AudioSheet
    sheet = vertical.modality("sheet")
    for target in (vertical.demo, sheet.picture, sheet.caption, sheet.read, vertical.data_check, entry.protocols):
        assert callable(resolve(target))
    files = {"recording.FLAC": "audio", "score.mxl": "sheet", "score.musicxml.gz": "sheet", "a.mid": None, "a": None}
    assert {name: vertical.modality_of(name, AudioSheet.modalities) for name in files} == files
    assert vertical.modality_of("recording.wav") is None  # one of audio-sheet or of clap: the system tells
    for preset, changes in AudioSheetConfig.presets.items():
        assert override(AudioSheetConfig(), changes) != AudioSheetConfig(), preset


@pytest.mark.parametrize("modality", ["sheet", "audio"])
def test_a_snippet_becomes_a_picture_and_a_sound(snippets, modality):
    media = resolve(vertical.modality(modality).picture)(snippets.test[2], modality, None)
    assert media.image is not None
    assert (media.audio is not None) == (modality == "audio")
