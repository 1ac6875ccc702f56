"""Pools of unequal length, many right answers, some left out, ranked by inner product: evaluated, embedded, searched.

Every figure is counted again by hand, from the vectors and the texts alone.
"""

import json
from math import comb

import numpy as np
import pandas as pd
import pytest
import torch

from counterpoint.common.data.embeddings import EmbeddingStore

WAYS = (("tune", "caption"), ("caption", "tune"))


@pytest.fixture(scope="module")
def store(run, ballads):
    from counterpoint.common.cli.main import main

    assert main(["ballads", "embed", str(run), "--shard", "8", "--columns", "mood"]) == 0
    return EmbeddingStore(run / "embeddings-test")


@pytest.fixture(scope="module")
def truth(songs):
    """Captions, verses, and what is right and left out between them, read off the manifest's texts."""
    table = pd.read_parquet(songs)
    table = table[table["split"] == "test"]
    said = {
        f"{row.id}/{verse}": [text.strip() for text in getattr(row, f"says{verse}").split("|")]
        for row in table.itertuples()
        for verse in (1, 2)
    }
    captions = list(dict.fromkeys(text for texts in said.values() for text in texts))
    right = np.array([[text in said[verse] for verse in said] for text in captions])
    other = np.array([[text in said[f"{v[:-1]}{3 - int(v[-1])}"] for v in said] for text in captions])
    return captions, list(said), right, other & ~right


def within(scores: np.ndarray, right: np.ndarray, out: np.ndarray, k: int) -> float:
    """The chance that a right key is among the first k, ties in any order."""
    kept = ~out
    best = scores[right & kept].max()
    near = np.abs(scores - best) <= 1e-6 * np.abs(scores).max()
    above = int((kept & (scores > best) & ~near).sum())
    tied, good, left = int((near & kept).sum()), int((near & kept & right).sum()), k - above
    return 0.0 if left <= 0 else 1.0 - (comb(tied - good, left) / comb(tied, left) if left <= tied else 0.0)


@pytest.fixture(scope="module")
def figures(store, run, ballads):
    from counterpoint.common.cli.main import main

    assert main(["ballads", "evaluate", str(run), "--label", "mood", "--bootstrap", "20"]) == 0
    return json.loads((run / "evaluation-test.json").read_text())


def scored(store, truth, query, key):
    """[queries, keys] inner products, and what is right and left out."""
    z = {name: store.vectors(name).double().numpy() for name in ("tune", "caption")}
    _, _, right, out = truth
    turned = (right, out) if query == "caption" else (right.T, out.T)
    return z[query] @ z[key].T, *turned


def test_the_data_are_of_the_kind_that_is_meant(truth):
    captions, verses, right, out = truth
    assert len(captions) > len(verses)
    assert (right.sum(1) > 1).any(), "a caption of several verses"
    assert (right.sum(0) > 1).all(), "several captions of a verse"
    assert out.any()


def test_stores_have_the_rows_of_their_own_samples(store, truth, songs):
    captions, verses, _, _ = truth
    assert store.ids == verses
    assert store.part("caption").ids == captions
    assert store.modalities == ["tune", "caption"], "each modality once, from where its samples are"
    table = pd.read_parquet(songs).set_index("id")
    frame = store.frame
    assert [table.index[row] for row in frame["row"]] == [name[:-2] for name in frame["id"]], "two samples of each row"
    assert frame["mood"].tolist() == table["mood"].loc[[name[:-2] for name in frame["id"]]].tolist()
    assert frame["group"].tolist() == table["group"].loc[[name[:-2] for name in frame["id"]]].tolist()
    assert store.vectors("tune").norm(dim=1).std() > 0.01, "lengths count"


def test_recall_is_what_counting_gives(store, truth, figures):
    said, counted, with_all, without_lengths = [], [], [], []
    for query, key in WAYS:
        scores, right, out = scored(store, truth, query, key)
        unit = scores / np.linalg.norm(store.vectors(key).double().numpy(), axis=1)
        (found,) = [r for name, r in figures["results"].items() if name.startswith(f"retrieval {query} -> {key}")]
        assert found["pool"] == (~out).sum(1).max()
        assert found["queries"] == len(scores)
        for k in (1, 5, 10, 25):
            said.append(found["metrics"][f"R@{k}"])
            ways = ((counted, scores, out), (with_all, scores, out & False), (without_lengths, unit, out))
            for figure, by, left_out in ways:
                figure.append(np.mean([within(*row, k) for row in zip(by, right, left_out)]))
    assert said == pytest.approx(counted, abs=1e-6)
    assert said != pytest.approx(with_all, abs=1e-3), "what is left out would count"
    assert said != pytest.approx(without_lengths, abs=1e-3), "lengths would not count"


@pytest.mark.parametrize(("query", "key"), WAYS)
def test_search_ranks_alike(store, truth, done, run, query, key):
    scores, _, out = scored(store, truth, query, key)
    names = truth[0] if query == "caption" else truth[1]
    row = int(out.sum(1).argmax())
    words = ("--id", names[row], "--source", query, "--to", key, "--top", 100, "--json")
    hits = json.loads(done("search", run, *words))["neighbours"]
    kept = np.flatnonzero(~out[row])
    ids = truth[1] if key == "tune" else truth[0]
    assert {hit["id"] for hit in hits} == {ids[i] for i in kept}
    assert [hit["dot"] for hit in hits] == pytest.approx(sorted(scores[row][kept], reverse=True), abs=1e-5)
    for hit in hits:
        assert hit["dot"] == pytest.approx(scores[row][ids.index(hit["id"])], abs=1e-5)


def test_search_keeps_to_conditions_on_what_is_found(store, truth, done, run, cli):
    words = ("search", run, "--id", truth[0][0], "--source", "caption", "--to", "tune", "--top", 100)
    every = json.loads(done(*words, "--json"))
    calm = json.loads(done(*words, "--where", "mood=calm", "--json"))
    mood = dict(zip(store.ids, store.frame["mood"]))
    assert calm["neighbours"] == [
        {**hit, "rank": rank} for rank, hit in enumerate((h for h in every["neighbours"] if mood[h["id"]] == "calm"), 1)
    ]
    assert calm["pool"] == sum(value == "calm" for value in mood.values()) < every["pool"]
    code, _, err = cli(*words, "--where", "mod=calm")
    assert code == 2
    assert "mood" in err


def test_own_files_and_texts_find_what_the_stored_ones_find(store, truth, done, run, songs):
    from ballads.songs import read_verses

    verse = truth[1][0]
    song, number = verse.split("/")
    file = songs.parent / pd.read_parquet(songs).set_index("id")["file"][song]
    to = ("--to", "caption", "--top", 5, "--json")
    by_id = json.loads(done("search", run, "--id", verse, "--source", "tune", *to))["neighbours"]
    pitches = " ".join(map(str, read_verses(file)[int(number) - 1]))
    by_text = json.loads(done("search", run, "--text", pitches, "--source", "tune", *to))["neighbours"]
    left_out = set(np.array(truth[0])[truth[3][:, 0]])  # of a sample in the store, not of a text from elsewhere
    kept = [(hit["id"], hit["dot"]) for hit in by_text if hit["id"] not in left_out]
    assert [name for name, _ in kept] == [hit["id"] for hit in by_id][: len(kept)]
    assert [dot for _, dot in kept] == pytest.approx([hit["dot"] for hit in by_id][: len(kept)], abs=1e-5)
    by_file = json.loads(done("search", run, "--file", file, *to))
    assert by_file["windows"] == 2, "both verses of the file vote"
    caption = truth[0][3]
    words = ("--source", "caption", "--to", "tune", "--top", 3, "--json")
    stored, typed = (json.loads(done("search", run, how, caption, *words))["neighbours"] for how in ("--id", "--text"))
    assert stored[0]["dot"] in [hit["dot"] for hit in typed]


def test_words_that_no_training_song_has_are_one_and_the_same(done, run):
    words = ("--source", "caption", "--to", "tune", "--json")
    one, two = (json.loads(done("search", run, "--text", text, *words)) for text in ("zither", "bombarde"))
    assert one["neighbours"] == two["neighbours"]


def test_the_page_shows_the_fields_pictures(done, run, ballads):
    done("search", run, "--id", "high rising", "--source", "caption", "--html", "found.html", "--top", 3)
    assert (ballads / "found.html").read_text().count("image/svg+xml") == 4


def test_the_report_frames_what_is_right_and_leaves_out_what_is_left_out(store, truth, run, ballads):
    from ballads.cli import vertical

    from counterpoint.common.report import Report
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.common.runs.page import add_gallery

    seen = []

    class Watched(Report):
        def gallery(self, title, rows):
            seen.append(rows)
            return super().gallery(title, rows)

    add_gallery(Watched("found"), vertical, OpenRun.load(run).encoded(), 40, 0)
    for (query, key), gallery in zip(WAYS, seen, strict=True):
        scores, right, out = scored(store, truth, query, key)
        asked, ids = (truth[0], truth[1]) if query == "caption" else (truth[1], truth[0])
        assert len(gallery) == len(scores)
        for row in gallery:
            i = asked.index(row.query.label)
            kept = np.where(out[i], -np.inf, scores[i])
            best = np.sort(kept)[::-1][:5]
            places = [ids.index(hit.label) for hit in row.results]
            assert kept[places[:5]] == pytest.approx(best, abs=1e-5)
            assert [hit.correct for hit in row.results] == right[i][places].tolist()


def test_the_map_shows_every_verse_and_every_caption_and_what_belongs_together(truth, run):
    from counterpoint.common.report import Report
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.common.runs.page import add_map

    seen = []

    class Watched(Report):
        def embedding_map(self, title, z, labels, hover=None, **options):
            seen.append((z, labels, hover, options))
            return self

    encoded = OpenRun.load(run).encoded()
    add_map(Watched("found"), encoded)
    captions, verses, right, _ = truth
    ((z, labels, hover, options),) = seen
    assert labels == ["tune"] * len(verses) + ["caption"] * len(captions)
    assert torch.equal(z[: len(verses)], encoded.of("tune")), "by inner product lengths stay"
    drawn = {(hover[i], hover[j]) for i, j in options["links"]}
    belong = {(f"tune of {verses[v]}", f"caption of {captions[c]}") for c, v in zip(*right.nonzero())}
    assert drawn == belong


def test_own_protocols_are_given_the_training_split_and_every_note(figures, store, songs):
    mood = figures["results"]["mood"]
    assert (mood["learnt_from"], mood["verses"]) == (32, 16)
    notes = figures["results"]["notes"]
    table = pd.read_parquet(songs)
    files = table["file"][table["split"] == "test"]
    assert notes["notes"] == sum(len((songs.parent / f).read_text().split()) for f in files)


def test_a_lost_shard_is_embedded_again_and_no_other(store, done, run):
    parts = sorted((run / "embeddings-test").rglob("part-*.parquet"))
    assert len({part.parent for part in parts}) == 2
    lost = [part for part in parts if part.name == "part-00001.parquet"]
    kept = {part: part.stat().st_mtime_ns for part in parts if part not in lost}
    before = [pd.read_parquet(part) for part in lost]
    for part in lost:
        part.unlink()
    done("embed", run, "--shard", "8", "--columns", "mood")
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    for part, old in zip(lost, before):
        again = pd.read_parquet(part)
        vectors = [name for name in old if name.startswith("vector.")]
        assert again.drop(columns=vectors).equals(old.drop(columns=vectors))
        for name in vectors:
            assert np.stack(again[name]) == pytest.approx(np.stack(old[name]), abs=1e-6)
