"""clip-ct: losses by their equations, towers that do not look at padding, data and truth, the verbs end to end."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from dicom_files import write_series

from counterpoint.common import runs
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.medical.cli import vertical
from counterpoint.medical.clip_ct import ClipCT, sentence_loss
from counterpoint.medical.commands import embed_scan, simulate
from counterpoint.medical.configs import ClipCTConfig, ReportTextConfig
from counterpoint.medical.data import load_ct
from counterpoint.medical.gallery import planes
from counterpoint.medical.models import ReportEncoder, regional
from counterpoint.medical.reported import Sentences
from counterpoint.medical.tokens import CLS, PAD, SEP, ReportTokenizer, learn_tokenizer

TINY = {
    "data.recipe": {"spacing": [14.0, 14.0, 14.0], "size": [24, 24, 24]}, "data.tokens": 96, "data.workers": 1,
    "channels": [4, 6, 8], "dim": 12, "text": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "train.batch_size": 6, "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    return simulate(folder, volumes=12, val=6, test=8, size=24, spacing=14.0, workers=1).manifest


@pytest.fixture(scope="module")
def run(phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERPOINT_CACHE", str(out.parent / "cache"))
        changes = TINY | {"data.manifest": str(phantoms), "train.out": str(out), "train.max_steps": 4}
        fit(create_system(ClipCT, override(ClipCTConfig(), changes)))
        yield out


def small(phantoms, **changes):
    return override(ClipCTConfig(), TINY | {"data.manifest": str(phantoms)} | changes)


def test_the_sentence_term_is_the_written_equation():
    g = torch.Generator().manual_seed(0)
    v, u = torch.randn(5, 8, generator=g).double(), torch.randn(7, 8, generator=g).double()
    said = torch.rand(5, 7, generator=g) < 0.4
    said[2] = False
    scale, bias = torch.tensor(3.0), torch.tensor(-0.5)
    found = sentence_loss(v, u, said, scale, bias)
    n = torch.nn.functional.normalize
    logits = scale * n(v.float(), dim=-1) @ n(u.float(), dim=-1).T + bias
    y = 2.0 * said - 1
    assert torch.allclose(found, torch.nn.functional.softplus(-y * logits).mean(1), atol=1e-5)


def test_reports_that_say_the_same_are_soft_targets(phantoms, monkeypatch, tmp_path):
    """Against the dense cross-entropy with rows of the target that sum to one."""
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    system = create_system(ClipCT, small(phantoms, sentence_weight=0.0))
    text = ["No nodule.", "a", "no  nodule.", "b", "NO NODULE.", "a"]
    g = torch.Generator().manual_seed(1)
    z = {name: torch.randn(6, 12, generator=g) for name in ("ct", "report")}
    batch = {"text": text, "index": torch.arange(6), "group": list("abcdef")}
    (rows,) = system.losses(batch, z).values()
    n = torch.nn.functional.normalize
    logits = (n(z["ct"], dim=-1) @ n(z["report"], dim=-1).T) / 0.07
    same = torch.tensor([[0, 2, 4], [1, 5, -1], [0, 2, 4], [3, -1, -1], [0, 2, 4], [1, 5, -1]])
    target = torch.zeros(6, 6)
    for i, places in enumerate(same.tolist()):
        for j in places:
            target[i, j] += j >= 0
    target /= target.sum(1, keepdim=True)
    dense = -(target * logits.log_softmax(1)).sum(1) / 2 - (target * logits.T.log_softmax(1)).sum(1) / 2
    assert torch.allclose(rows, dense, atol=1e-4)


def test_sentences_of_a_batch_are_counted_once_and_travel_with_their_rows():
    tokens = [torch.tensor([[1, 2], [3, 4]]), torch.tensor([[3, 4]]), torch.zeros(0, 2, dtype=torch.long)]
    found = Sentences.of(tokens, [["A.", "B."], ["b."], []])
    assert found.tokens.tolist() == [[1, 2], [3, 4]]
    assert found.said.tolist() == [[True, True], [False, True], [False, False]]
    part = found.cut(1, 3)
    assert part.said.tolist() == found.said[1:].tolist()
    assert part.tokens is found.tokens


def test_a_texts_embedding_does_not_depend_on_padding_or_neighbours():
    torch.manual_seed(0)
    tower = ReportEncoder(30, 12, ReportTextConfig(width=16, layers=2, heads=2), 8).eval()
    short = torch.tensor([[2, 7, 8, 3]])
    padded = torch.cat([short, torch.full((1, 8), PAD)], 1)
    with torch.no_grad():
        alone, wide = tower(short), tower(padded)
        together = tower(torch.cat([padded, torch.tensor([[2, *range(5, 15), 3]])]))
    assert torch.allclose(alone, wide, atol=1e-6)
    assert torch.allclose(alone[0], together[0], atol=1e-5)


def test_the_order_of_a_reports_sentences_does_not_count():
    torch.manual_seed(0)
    tower = ReportEncoder(30, 12, ReportTextConfig(width=16, layers=2, heads=2), 8).eval()
    a = torch.tensor([[2, 7, 8, 3, 9, 10, 3, 0]]), torch.tensor([[0, 0, 0, 0, 1, 1, 1, -1]])
    b = torch.tensor([[9, 10, 3, 2, 7, 8, 3, 0]]), torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1]])
    c = torch.tensor([[2, 7, 10, 3, 9, 8, 3, 0]]), a[1]
    with torch.no_grad():
        assert torch.allclose(tower(*a), tower(*b), atol=1e-5)
        assert not torch.allclose(tower(*a), tower(*c), atol=1e-3)  # words of another sentence


def test_the_tokenizer_is_the_same_for_the_same_texts_and_knows_every_word_of_them():
    texts = ["There is a solid nodule of 12 mm.", "No nodule.", "Left pleural effusion, no nodule."]
    file = learn_tokenizer(texts, 300)
    assert file == learn_tokenizer(texts, 300)
    tokenizer = ReportTokenizer(file)
    ids = tokenizer(texts, 40)
    assert (ids[:, 0] == CLS).all()
    assert (ids != 1).all()  # [UNK]
    assert sorted({int((row == SEP).sum()) for row in ids}) == [1]
    decoded = tokenizer.tokenizer.decode(tokenizer.ids("no solid nodule"))
    assert decoded == "no solid nodule"
    assert tokenizer(["no nodule " * 50], 8)[0, -1] == SEP
    assert ReportTokenizer(learn_tokenizer(texts, 100)).ids("mediastinum") != []


def test_equal_reports_are_one_report_that_is_right_for_all_their_volumes(phantoms, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    config = small(phantoms)
    data = load_ct(config.data)
    same = ("Findings: no nodule.", *["Findings:  NO nodule."] * 2)
    reports = list(data.reports)
    rows = data.rows("test")
    for row, text in zip(rows, same):
        reports[row] = (text,)
    system = create_system(ClipCT, config).use(replace(data, reports=tuple(reports)))
    test = system.datasets().test
    assert len(test.pools["report"]) == len(test) - 2
    links = test.relevant("report", "ct")
    first = test.pools["report"].place["findings: no nodule."]
    assert links.of_query(first).tolist() == [0, 1, 2]


def test_a_changed_recipe_or_file_is_another_prepared_volume(phantoms, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    a = load_ct(small(phantoms).data).volumes[0]
    assert load_ct(small(phantoms).data).volumes[0] == a
    other = small(phantoms, **{"data.recipe": {"spacing": [20.0, 20.0, 20.0], "size": [16, 16, 16]}})
    assert load_ct(other.data).volumes[0] != a


def test_unreadable_volumes_stop_or_are_left_out(phantoms, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    table = Manifest.load(phantoms)
    frame = table.frame.copy()
    frame.loc[1, "volume"] = "volumes/none.nii.gz"
    bad = replace(table, frame=frame, path=None).save(phantoms.parent / "bad.parquet").path
    with pytest.raises(InputError, match=r"bad.parquet, row 2 \(id train-00001\): .*none.nii.gz"):
        load_ct(small(bad).data)
    data = load_ct(small(bad).data, "skip", 0.5)
    assert len(data.volumes) == len(table) - 1
    assert [b.id for b in data.left_out["train"]] == ["train-00001"]


def test_the_run_resumes_evaluates_embeds_and_shows(run, tmp_path):
    found = runs.evaluate(run, bootstrap=20, baseline="none", vertical=vertical, out=tmp_path / "e.json")
    figures = json.loads((tmp_path / "e.json").read_text())
    said = json.dumps(figures)
    assert "zero-shot findings" in said
    assert "generator" in said
    assert any("SYNTHETIC" in line or "synthetic" in line for line in found.lines)
    embedded = runs.embed(run, tmp_path / "vectors", columns=("lung_nodule",), vertical=vertical)
    assert any("SYNTHETIC" in line for line in embedded.lines)
    page = runs.report(run, out=tmp_path / "r.html", bootstrap=20, examples=1)
    text = next(iter(page.files.values())).read_text()
    assert "synthetic" in text.lower()
    assert "data:image/png" in text


def test_a_users_file_and_text_find_neighbours_by_the_runs_own_recipe(run, tmp_path, phantoms):
    table = Manifest.load(phantoms)
    row = table.select("test").row(0)
    file = table.file(row["volume"])
    found = runs.search(run, file=file, to="ct", top=1, vertical=vertical)
    assert found.figures["neighbours"][0]["id"] == row["id"]
    assert found.figures["neighbours"][0]["cosine"] == pytest.approx(1.0, abs=1e-4)
    asked = runs.search(run, text="Left pleural effusion.", source="report", to="ct", top=3, vertical=vertical)
    assert len(asked.figures["neighbours"]) == 3
    wrong = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asarray(wrong.dataobj) - 1024, wrong.affine), tmp_path / "twice.nii.gz")
    with pytest.raises(InputError, match=r"twice.nii.gz.*applied twice"):
        runs.search(run, file=tmp_path / "twice.nii.gz", to="ct", vertical=vertical)


def test_one_scan_in_any_form_has_one_embedding(run, tmp_path, phantoms):
    table = Manifest.load(phantoms)
    file = table.file(table.select("test").row(0)["volume"])
    vector = embed_scan(run, file, tmp_path / "v.npy").files["vector"]
    system = load_run(run, "best")
    row = system.datasets().test[0]
    with torch.no_grad():
        expected = system.eval().encode({"ct": row["ct"][None]}, "ct")["ct"][0]
    assert np.allclose(np.load(vector), expected.numpy(), atol=1e-4)
    image = nibabel.load(file)
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "S", "R")))
    nibabel.save(turned, tmp_path / "turned.nii")
    again = embed_scan(run, tmp_path / "turned.nii", tmp_path / "w.npy").files["vector"]
    assert np.allclose(np.load(again), expected.numpy(), atol=1e-4)
    write_series(tmp_path / "d")
    outcome = embed_scan(run, tmp_path / "d")
    assert outcome.figures["dim"] == 12
    write_series(tmp_path / "d", prefix="b")
    with pytest.raises(InputError, match="holds 2 volumes"):
        embed_scan(run, tmp_path / "d")


def test_the_objective_can_be_another_one(phantoms, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    system = create_system(ClipCT, small(phantoms, objective="DCL"))
    data = system.datasets().train
    batch = data.collate([data[i] for i in range(4)])
    terms = system.losses(batch, system.embed(batch))
    assert "dcl" in terms
    assert all(torch.isfinite(torch.as_tensor(t)).all() for t in terms.values())


def test_dense_features_lie_on_the_volumes_grid(phantoms, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    system = create_system(ClipCT, small(phantoms)).eval()
    assert system.dense_features({"ct": torch.zeros(2, 24, 24, 24)})["ct"].shape == (2, 24, 24, 24, 6)


def test_pictures_are_drawn_as_radiologists_look():
    """Axial: the patient's right on the left of the picture, the front above; coronal: the head above."""
    data = np.full((20, 20, 20), -1000.0)
    data[17:, 8:12, 8:12] = 1000  # right
    data[8:12, 17:, 8:12] = 1000  # front
    data[8:12, 8:12, 17:] = 1000  # head
    shown = planes(data, (1.0, 1.0, 1.0)) > 0.5
    axial, coronal = shown[:, :96], shown[:, 96:192]
    assert axial[40:56, :10].any()
    assert not axial[40:56, -10:].any()
    assert axial[:10, 40:56].any()
    assert not axial[-10:, 40:56].any()
    assert coronal[:10, 40:56].any()
    assert not coronal[-10:, 40:56].any()


@pytest.mark.parametrize("size", [(6, 9, 12), (5, 7, 8)])
def test_regions_are_those_of_adaptive_pooling(size):
    x = torch.randn(2, 3, *size)
    assert torch.allclose(regional(x, 3, "mean"), torch.nn.functional.adaptive_avg_pool3d(x, 3), atol=1e-6)
    assert torch.equal(regional(x, 3, "amax"), torch.nn.functional.adaptive_max_pool3d(x, 3))


@pytest.mark.slow
def test_the_encoder_is_exported_to_onnx(run, tmp_path):
    written = runs.export(run, tmp_path / "m.onnx", vertical=vertical)
    assert any("largest difference" in line for line in written.lines)
