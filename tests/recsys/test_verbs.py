"""The vertical through the command line: from files to a served list, resumed, grown, exported."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.common.cli.main import main
from counterpoint.common.discover import find_verticals
from counterpoint.common.trainers import from_pretrained, load_run

pytestmark = pytest.mark.skipif("recsys" not in find_verticals(), reason="the package is not installed as it is here")
QUIET = ("--train.tensorboard", "false", "--train.accelerator", "cpu", "--train.monitor_every", "0")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recsys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["counterpoint"])
        patch.chdir(folder)
        assert main(["recsys", "data", "simulate", "--out", "set", "--users", "120", "--items", "60"]) == 0
        yield folder


@pytest.fixture
def done(work, monkeypatch, capsys):
    """`counterpoint recsys ...` that must succeed: its stdout."""
    monkeypatch.chdir(work)

    def run(*argv):
        capsys.readouterr()
        code = main(["recsys", *(str(word) for word in argv)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


@pytest.fixture(scope="module")
def run(work):
    words = ("--preset", "small", "--train.max_epochs", "6", "--train.batch_size", "256", "--dim", "8", *QUIET)
    data = ("--data.manifest", "set/manifest.parquet", "--train.out", "runs/gcn")
    assert main(["recsys", "pretrain", "lightgcn", *words, *data]) == 0
    return work / "runs" / "gcn"


@pytest.fixture(scope="module")
def baselines(work):
    """Runs of popularity and item-kNN."""
    for name in ("popularity", "item-knn"):
        words = ("--data.manifest", "set/manifest.parquet", "--train.out", f"runs/{name}", *QUIET)
        assert main(["recsys", "pretrain", name, *words]) == 0
    return work / "runs/popularity", work / "runs/item-knn"


def test_validation_is_the_full_ranking_and_chooses_the_best(run):
    rows = pd.read_csv(run / "metrics.csv")
    seen = rows["val/recall@20"].dropna()
    assert len(seen) == 6
    assert seen.iloc[-1] > seen.iloc[0]
    assert "val/loss" not in rows
    best = json.loads((run / "checkpoints/best/state.json").read_text())["metrics"]["val/recall@20"]
    assert best == pytest.approx(seen.max())
    system = load_run(run, "best")
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.recsys.evaluation.protocol import protocols

    found = protocols(OpenRun.of(system, "val").drawing(5, system.config.train.seed))
    assert found["ranking user -> item"].metrics["recall@20"] == pytest.approx(best)


def test_evaluate_and_the_reports(done, run, baselines):
    figures = json.loads(done("evaluate", run, "--bootstrap", 20, "--json"))
    whole = figures["results"]["ranking user -> item"]
    assert whole["intervals"]["recall@20"]["low"] > whole["chance"]["recall@20"]
    assert whole["protocol"]["data"]
    assert "trained_on" not in figures, "users stand in every split by intent"
    against = json.loads(done("evaluate", run, "--against", baselines[0], "--bootstrap", 20, "--json"))["against"]
    assert any(d["protocol"] == "ranking user -> item" for d in against["differences"])
    for name in (run, *baselines):
        done("evaluate", name, "--bootstrap", 5)
        done("report", name, "--bootstrap", 5)
    page = (run / "report.html").read_text()
    assert "SYNTHETIC" in page.upper()
    assert "All modalities" in page
    assert "item, coloured by category" in page
    assert all(f"</i>{name} <span" in page for name in set(load_run(run).catalogue.column("category")))


def test_a_run_is_evaluated_by_another_convention_without_training_anew(done, run, capsys):
    plain = json.loads(done("evaluate", run, "--bootstrap", 5, "--json"))["results"]["ranking user -> item"]
    words = ("ranking.convention=mmrec", "ranking.cuts=[3,20]", "ranking.sampled=10")
    figures = json.loads(done("evaluate", run, "--bootstrap", 5, "--json", "--out", "o.json", "--settings", *words))
    found = figures["results"]["ranking user -> item"]
    assert (found["protocol"]["convention"], found["protocol"]["mask"]) == ("mmrec", "train")
    assert (plain["protocol"]["convention"], plain["protocol"]["mask"]) == ("counterpoint", "train+val")
    assert "recall@3" in found["metrics"]
    assert "recall@5" not in found["metrics"]
    assert found["metrics"]["recall@20"] <= plain["metrics"]["recall@20"], "validation items take places"
    assert any(name.startswith("SAMPLED ranking against 10") for name in figures["results"])
    assert figures["settings"] == list(words)
    wrong = {"ranking.convention=x": "one of counterpoint", "train.seed=1": "concerns the training",
             "ranking.con=x": "did you mean", "ranking.cuts": "expected name=value"}  # fmt: skip
    for setting, said in wrong.items():
        assert main(["recsys", "evaluate", str(run), "--settings", setting]) == 2
        assert said in capsys.readouterr().err


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(done, work):
    words = ("--preset", "small", "--train.batch_size", 256, "--dim", 4, *QUIET, "--data.manifest",
             "set/manifest.parquet", "--train.checkpoint_every_steps", 3)  # fmt: skip
    done("pretrain", "lightgcn", *words, "--train.max_epochs", 2, "--train.out", "runs/whole")
    from counterpoint.common.trainers import create_system, empty_system, fit
    from counterpoint.common.trainers.config_files import load_yaml, override
    from counterpoint.recsys.configs import LightGCNConfig
    from counterpoint.recsys.lightgcn import LightGCN

    config = override(LightGCNConfig(), load_yaml(work / "runs/whole/config.yaml")["config"])

    class Stopped(Exception):
        pass

    real, step = LightGCN.step, 7

    def dying(self, batch):
        if self.progress.total_step == step:
            raise Stopped
        return real(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightGCN, "step", dying)
        with pytest.raises(Stopped):
            fit(create_system(LightGCN, override(config, {"train.out": "runs/part"})))
    fit(empty_system(work / "runs/part"), resume=work / "runs/part")
    one, other = (load_file(work / "runs" / name / "checkpoints/last/model.safetensors") for name in ("whole", "part"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_tables_of_users_and_items_are_written_with_their_metric(done, run, work):
    info = json.loads(done("embed", run, "--split", "train", "--out", "vectors", "--columns", "category", "--json"))
    assert info["metric"] == "dot"
    users = pd.concat([pd.read_parquet(p) for p in sorted((work / "vectors").glob("*.parquet"))])
    items = pd.concat([pd.read_parquet(p) for p in sorted((work / "vectors/pools/item").glob("*.parquet"))])
    assert (len(users), len(items)) == (120, 60)
    assert set(items["category"]) <= {"ambient", "blues", "chamber", "drone", "electro", "folk", "gospel", "hip-hop",
                                      "indie", "jazz"}  # fmt: skip
    system = load_run(run)
    scores = np.stack(users["vector.user"]) @ np.stack(items["vector.item"]).T
    assert scores == pytest.approx(system.scorer().scores(torch.arange(120)).numpy(), abs=1e-5)


def test_item_knn_has_nothing_to_embed(work, baselines, monkeypatch, capsys):
    monkeypatch.chdir(work)
    assert main(["recsys", "embed", str(baselines[1])]) == 2
    assert "no embeddings" in capsys.readouterr().err


def test_search_leaves_out_what_was_seen_and_keeps_to_the_conditions(done, run):
    system = load_run(run)
    user = system.users[int(system.evaluation_datasets().test.rows[0])]
    words = ("search", run, "--id", user, "--source", "user", "--to", "item", "--top", 60, "--json")
    found = json.loads(done(*words))["neighbours"]
    log = system.data.log
    row = system.users.row(user)
    seen = {log.items[i] for i in log.item[(log.user == row) & (log.split < 2)]}
    assert {hit["id"] for hit in found} == set(log.items) - seen
    scores = system.scorer().scores(torch.tensor([row]))[0]
    assert [hit["dot"] for hit in found] == pytest.approx(
        sorted((float(scores[i]) for i, n in enumerate(log.items) if n not in seen), reverse=True), abs=1e-5
    )
    category = dict(zip(system.catalogue.ids, system.catalogue.column("category")))
    jazz = json.loads(done(*words, "--where", "category=jazz"))["neighbours"]
    assert [hit["id"] for hit in jazz] == [hit["id"] for hit in found if category[hit["id"]] == "jazz"]
    approximate = json.loads(done(*words[:-3], "--top", 5, "--index", "faiss", "--json"))
    assert 0 < approximate["recall of the index"] <= 1


def test_recommend_for_a_user_a_newcomer_and_nobody(done, run, baselines):
    system = load_run(run)
    log = system.data.log
    user = system.users[3]
    found = json.loads(done("recommend", run, "--user", user, "--top", 100, "--json"))
    met = {log.items[i] for i in log.item[log.user == 3]}
    known = {log.items[i] for i in np.flatnonzero(system.item_counts)}  # of the others LightGCN has learnt nothing
    assert {offer["id"] for offer in found["offers"]} == known - met
    assert found["offers"][0]["what"].split()[0] in system.catalogue.column("category")
    again = json.loads(done("recommend", run, "--user", user, "--top", 100, "--again", "true", "--json"))
    assert {offer["id"] for offer in again["offers"]} == known
    late = json.loads(done("recommend", run, "--user", user, "--where", "released>1.58e9,category!=jazz", "--json"))
    released = dict(zip(system.catalogue.ids, system.catalogue.column("released")))
    assert all(released[offer["id"]] > 1.58e9 for offer in late["offers"])
    history = ",".join(log.items[i] for i in system.sequence(3))
    like = json.loads(done("recommend", run, "--history", history, "--top", 10, "--json"))
    assert not {o["id"] for o in like["offers"]} & {log.items[i] for i in system.sequence(3)}
    words = ("--text", history, "--source", "user", "--to", "item", "--top", 60, "--json")
    searched = [hit["id"] for hit in json.loads(done("search", run, *words))["neighbours"]]
    left = [name for name in searched if name in known and name not in history.split(",")]
    assert left[:10] == [offer["id"] for offer in like["offers"]]
    nobody = json.loads(done("recommend", run, "--history", "none", "--top", 5, "--json"))
    assert nobody["notes"][-1] == "without a history: what suits most users"
    mean = system.served()[0].mean(0) @ system.served()[1].T
    best = [log.items[i] for i in mean.argsort(descending=True).tolist()]
    assert [o["id"] for o in nobody["offers"]] == [name for name in best if name in known][:5]
    knn = json.loads(done("recommend", baselines[1], "--history", history, "--top", 3, "--json"))
    assert len(knn["offers"]) == 3


def test_everybodys_lists_go_to_parquet(done, run, work):
    found = json.loads(done("recommend", run, "--top", 4, "--out", "lists.parquet", "--json"))
    table = pd.read_parquet(work / "lists.parquet")
    assert (found["users"], len(table)) == (120, 480)
    one = json.loads(done("recommend", run, "--user", table["user"].iloc[40], "--top", 4, "--json"))["offers"]
    part = table[table["user"] == table["user"].iloc[40]]
    assert part["item"].tolist() == [offer["id"] for offer in one]
    assert part["rank"].tolist() == [1, 2, 3, 4]
    assert part["score"].tolist() == pytest.approx([offer["score"] for offer in one], abs=1e-5)
    approximate = json.loads(done("recommend", run, "--top", 4, "--index", "faiss", "--out", "a.parquet", "--json"))
    assert 0.3 < approximate["recall"] <= 1


def test_a_folder_of_weights_serves_without_the_data(done, run, work, tmp_path):
    done("export", run, "--out", "model")
    there, here = from_pretrained(work / "model"), load_run(run)
    assert there.assets == here.assets
    assert torch.equal(there.scorer().scores(torch.arange(9)), here.scorer().scores(torch.arange(9)))
    asked = ("--user", here.users[3], "--top", 5, "--json")
    of_run, of_folder = (json.loads(done("recommend", name, *asked))["offers"] for name in (run, "model"))
    assert of_folder == of_run


def test_a_history_names_any_id(done, run):
    """A JSON list beside the plain form."""
    first, second = load_run(run).items[:2]
    plain = json.loads(done("recommend", run, "--history", f"{first}, {second}", "--json"))
    listed = json.loads(done("recommend", run, "--history", json.dumps([first, second]), "--json"))
    assert plain["offers"] == listed["offers"]
    assert plain["history"] == [first, second]


def test_ids_with_commas_and_an_item_called_none_are_served(work, monkeypatch, capsys):
    """And an item that nobody met in training is offered to nobody by a system that knows items by their users."""
    monkeypatch.chdir(work)
    rng = np.random.default_rng(0)
    names = ["none", "Ramones, The", *(f"i{n}" for n in range(8))]
    rows = [(f"u{u}", names[i], "train") for u in range(30) for i in rng.permutation(9)[:5]]
    pd.DataFrame([*rows, ("u0", names[9], "test")], columns=["user", "item", "split"]).to_csv("odd.csv", index=False)
    assert main(["recsys", "data", "import", "interactions", "odd.csv", "--out", "odd"]) == 0
    words = ("--preset", "small", "--dim", "4", "--train.max_steps", "2", "--train.batch_size", "50", *QUIET)
    assert main(["recsys", "pretrain", "lightgcn", *words, "--data.manifest", "odd/manifest.parquet",
                 "--train.out", "runs/odd"]) == 0  # fmt: skip
    capsys.readouterr()

    def recommended(*asked):
        assert main(["recsys", "recommend", "runs/odd", "--top", "50", *asked, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    both = ("--history", '["none", "Ramones, The"]')
    for asked in (both, ("--history", "none"), ("--user", "u1", "--again", "true")):
        found = recommended(*asked)
        assert asked is not both or found["history"] == names[:2]
        assert names[9] not in {offer["id"] for offer in found["offers"]}
        assert "1 items that nobody met in training are not offered: LightGCN" in " ".join(found["notes"])
    assert main(["recsys", "recommend", "runs/odd", "--history", "[3.5]"]) == 2
    assert "3.5 is no id" in capsys.readouterr().err
    assert main(["recsys", "recommend", "runs/odd", "--history", "null"]) == 2  # an id like any other, not everybody
    assert "null" in capsys.readouterr().err
    assert not (work / "runs" / "odd" / "recommendations.parquet").exists()


def test_a_run_goes_on_with_new_users_and_items_whose_rows_stand_behind_the_old(done, run, work):
    table = pd.read_parquet(work / "set" / "manifest.parquet")
    log = load_run(run).data.log
    rows = [(log.users[u], log.items[i], t, ("train", "val", "test")[s])
            for u, i, t, s in zip(log.user, log.item, log.time, log.split)]  # fmt: skip
    late = log.time.max() + 1
    rows += [("newcomer", "i01", late, "train"), ("newcomer", "novelty", late, "train")]
    rows += [(name, "novelty", late, "train") for name in table["id"][:6]]
    pd.DataFrame(rows, columns=["user", "item", "time", "split"]).to_csv(work / "newer.csv", index=False)
    done("data", "import", "interactions", "newer.csv", "--out", "newer")
    words = ("--preset", "small", "--dim", 8, "--train.batch_size", 256, *QUIET, "--data.manifest",
             "newer/manifest.parquet", "--continue_from", run)  # fmt: skip
    done("pretrain", "lightgcn", *words, "--train.max_steps", 3, "--train.out", "runs/grown")
    old, new = load_run(run, "last"), load_run(work / "runs/grown", "last")
    assert list(new.users)[:120] == list(old.users)
    assert list(new.users)[120:] == ["newcomer"]
    assert list(new.items)[60:] == ["novelty"]
    was, now = (s.scorer().scores(torch.arange(120))[:, :60] for s in (old, new))
    assert float((was - now).abs().mean()) < 0.2 * float(was.abs().mean())
    assert float(torch.corrcoef(torch.stack([was.flatten(), now.flatten()]))[0, 1]) > 0.98
    from counterpoint.common.trainers import create_system
    from counterpoint.common.trainers.config_files import override
    from counterpoint.recsys.lightgcn import LightGCN

    same = create_system(LightGCN, override(old.config, {"train.out": "unused"}), continue_from=run)
    assert torch.equal(same.eval().scorer().scores(torch.arange(120)), old.scorer().scores(torch.arange(120)))


def test_what_was_trained_on_cannot_be_held_out_later(work, run, monkeypatch, capsys):
    monkeypatch.chdir(work)
    words = ["recsys", "pretrain", "lightgcn", "--preset", "small", "--dim", "8", "--continue_from", str(run),
             "--data.manifest", "set/manifest.parquet", "--data.split_seed", "5", "--train.out", "runs/no"]  # fmt: skip
    assert main(words) == 2
    assert "are held out here and were trained on before" in capsys.readouterr().err


def test_the_data_verbs(done, work, capsys, monkeypatch):
    assert "fingerprint" in done("data", "check", "set/manifest.parquet")
    figures = json.loads(done("data", "split", "set/manifest.parquet", "--kind", "leave-last-out", "--json"))
    assert figures["splits"]["test"] == {"interactions": 120, "users": 120}
    assert "split (leave-last-out)" in done("data", "check", "set-split/manifest.parquet")
    vectors = work / "set-split" / "features" / "text.npy"
    vectors.write_bytes(vectors.read_bytes()[:-8])
    assert main(["recsys", "data", "check", "set-split/manifest.parquet"]) == 2
    assert "1 of 2 item features cannot be used" in capsys.readouterr().err


def test_heads_on_users_are_refused_with_the_reason(work, run, monkeypatch, capsys):
    monkeypatch.chdir(work)
    assert main(["recsys", "finetune", str(run), "--labels", "id"]) == 2
    assert "stand in every split" in capsys.readouterr().err
