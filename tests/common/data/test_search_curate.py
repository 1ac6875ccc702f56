"""Search finds what brute force finds; curation keeps what it should and says what went."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterpoint.common.data import Links, Manifest
from counterpoint.common.data.curate import (
    check_near_duplicates_across_splits,
    filter_pairs,
    near_duplicate_groups,
    pair_scores,
    remove_near_duplicates,
    subset_by_query,
)
from counterpoint.common.data.embeddings import embed_to_parquet
from counterpoint.common.data.samples import ListSamples
from counterpoint.common.data.search import NeighbourIndex, search_store
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.metrics import auroc
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.runs.curation import _matches
from counterpoint.common.runs.encode import Encoded


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def unit(z):
    return torch.nn.functional.normalize(z, dim=1)


def manifest(n, splits=None):
    return Manifest.from_rows([{"id": f"s{i}", "split": splits[i] if splits else ""} for i in range(n)])


class Identity(torch.nn.Module):
    def encode(self, batch):
        return {"audio": batch["x"], "sheet": batch["x"].roll(1, 0)}


@pytest.fixture
def store(tmp_path):
    z = gaussian(30, 6)
    rows = [{"x": z[i], "id": f"s{i}"} for i in range(30)]
    return embed_to_parquet(Identity(), ListSamples(rows), tmp_path, batch_size=30), z


class TestIndex:
    def test_exact_equals_sorting_all_cosines(self):
        z, q = gaussian(200, 8), gaussian(5, 8, 1)
        index = NeighbourIndex(z, [str(i) for i in range(200)])
        expected = (unit(q) @ unit(z).T).sort(1, descending=True)
        for i, hits in enumerate(index.search(q, 7)):
            assert [h.row for h in hits] == expected.indices[i, :7].tolist()
            assert [h.score for h in hits] == pytest.approx(expected.values[i, :7].tolist(), abs=1e-6)

    def test_more_neighbours_than_vectors_gives_all(self):
        assert len(NeighbourIndex(gaussian(3, 2), ["a", "b", "c"]).search(gaussian(1, 2), 10)[0]) == 3

    @pytest.mark.parametrize("kind", ["exact", "faiss"])
    def test_saving_and_loading_finds_the_same(self, tmp_path, kind):
        if kind == "faiss":
            pytest.importorskip("faiss", reason="the search extra (faiss) is not installed")
        index = NeighbourIndex(gaussian(400, 8), [f"s{i}" for i in range(400)], kind=kind)
        index.save(tmp_path)
        again = NeighbourIndex.load(tmp_path)
        assert again.kind == kind
        assert again.search(gaussian(4, 8, 2), 5) == index.search(gaussian(4, 8, 2), 5)

    def test_faiss_recall_is_measured_and_grows_with_the_cells_searched(self):
        pytest.importorskip("faiss", reason="the search extra (faiss) is not installed")
        z, ids = gaussian(3000, 16), [str(i) for i in range(3000)]
        few, all_cells = (NeighbourIndex(z, ids, kind="faiss", nlist=40, nprobe=p) for p in (1, 40))
        assert few.recall() < 0.9
        assert all_cells.recall() == 1.0

    def test_faiss_hits_have_the_cosines_of_the_exact_index(self):
        pytest.importorskip("faiss", reason="the search extra (faiss) is not installed")
        z, q, ids = 3 * gaussian(500, 8), 7 * gaussian(6, 8, 1), [str(i) for i in range(500)]
        exact, cells = (NeighbourIndex(z, ids, kind=kind, nprobe=99) for kind in ("exact", "faiss"))
        for options in ({}, {"leave_out": [{3}, (), {5}, {6}, {7}, {8}]}):
            for a, b in zip(exact.search(q, 5, **options), cells.search(q, 5, **options)):
                assert [h.row for h in a] == [h.row for h in b]
                assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-6)
                assert len(a) == 5

    def test_leaving_out_a_row_that_is_far_away_gives_no_more_hits_than_asked_for(self):
        z = gaussian(20, 3)
        index = NeighbourIndex(z, [str(i) for i in range(20)])
        far = int((unit(z) @ unit(z[:1]).T).argmin())
        (whole,), (without,) = index.search(z[:1], 3), index.search(z[:1], 3, leave_out=[[far]])
        assert [h.row for h in without] == [h.row for h in whole]

    def test_nan_and_senseless_numbers_of_neighbours_are_refused(self):
        broken = gaussian(4, 3)
        broken[2, 0] = float("nan")
        with pytest.raises(ValueError, match="'c' holds NaN"):
            NeighbourIndex(broken, list("abcd"))
        index = NeighbourIndex(gaussian(4, 3), list("abcd"))
        with pytest.raises(InputError, match="NaN"):
            index.search(broken[2:3])
        for k in (0, -1):
            with pytest.raises(InputError, match="at least 1"):
                index.search(gaussian(1, 3), k)

    def test_wrong_dimension_and_unknown_id_are_clear(self):
        index = NeighbourIndex(gaussian(5, 4), [f"piece-{i}" for i in range(5)])
        with pytest.raises(InputError, match="3 dimensions, the index 4"):
            index.search(gaussian(1, 3))
        with pytest.raises(InputError, match="did you mean 'piece-3'"):
            index.row("piece3")


class TestSearch:
    def test_by_id_across_modalities_may_find_its_own_partner_but_not_itself(self, store):
        folder, _ = store
        (across,) = search_store(folder, ids=["s4"], source="audio", target="sheet", k=3)
        assert across.hits[0].id == "s5"  # the sheet of s5 is the audio of s4 in this toy
        (within,) = search_store(folder, ids=["s4"], target="audio", k=3)
        assert "s4" not in [h.id for h in within.hits]
        assert len(within.hits) == 3

    def test_across_modalities_a_sample_finds_its_own_partner(self, tmp_path):
        class Same(torch.nn.Module):
            def encode(self, batch):
                return {"audio": batch["x"], "sheet": 2 * batch["x"]}

        z = gaussian(12, 6)
        folder = embed_to_parquet(Same(), ListSamples([{"x": z[i], "id": f"s{i}"} for i in range(12)]), tmp_path)
        found = search_store(folder, ids=["s9", "s1", "s4"], source="audio", target="sheet", k=1)
        assert [(f.query, f.hits[0].id) for f in found] == [("s9", "s9"), ("s1", "s1"), ("s4", "s4")]

    def test_every_query_keeps_its_own_hits_in_the_order_asked(self, store, tmp_path):
        folder, z = store
        found = search_store(folder, ids=["s9", "s1", "s20"], target="audio", k=4)
        cosines = (unit(z) @ unit(z).T).fill_diagonal_(-2)
        for f in found:
            expected = cosines[int(f.query[1:])].topk(4).indices.tolist()
            assert [h.id for h in f.hits] == [f"s{i}" for i in expected]
        files = [tmp_path / name for name in ("b.txt", "c.txt", "a.txt")]
        for file, row in zip(files, (3, 5, 8)):
            file.write_text(str(row))
        by_file = search_store(folder, target="audio", files=files, encode=lambda p: z[int(p.read_text())], k=1)
        assert [(f.query, f.hits[0].id) for f in by_file] == list(zip(map(str, files), ("s3", "s5", "s8")))

    def test_by_file_and_by_vector(self, store, tmp_path):
        folder, z = store
        file = tmp_path / "mine.txt"
        file.write_text("7")
        by_file = search_store(folder, target="audio", files=[file], encode=lambda p: z[int(p.read_text())], k=1)
        assert by_file[0].hits[0].id == "s7"
        assert search_store(folder, target="audio", vectors=z[9:10], k=1)[0].hits[0].id == "s9"

    def test_what_is_missing_is_said(self, store):
        folder, _ = store
        with pytest.raises(InputError, match="audio, sheet"):
            search_store(folder, ids=["s1"])
        with pytest.raises(InputError, match="nothing to search for"):
            search_store(folder, target="audio")


class TestCurate:
    def test_scores_tell_matched_from_shuffled_pairs_and_filtering_cleans(self):
        a = gaussian(1000, 32)
        b = a + 0.8 * gaussian(1000, 32, 1)
        wrong = np.arange(1000) < 300
        b[:300] = b[:300].roll(7, 0)
        scores = pair_scores(a, b)
        assert auroc(scores.numpy(), ~wrong) > 0.99
        curated = filter_pairs(manifest(1000), scores, keep=0.7)
        kept = curated.manifest.frame["id"].str[1:].astype(int).to_numpy()
        assert wrong[kept].mean() < 0.02
        assert len(curated.manifest) + len(curated.dropped) == 1000
        assert str(curated) == "700 kept, 300 dropped {'low score': 300}"

    def test_length_does_not_count_and_dropped_rows_carry_their_own_score(self):
        a, b = gaussian(50, 4), gaussian(50, 4, 1)
        lengths = torch.linspace(0.1, 9, 50)[:, None]
        torch.testing.assert_close(pair_scores(lengths * a, b / lengths), (unit(a) * unit(b)).sum(1))
        scores = torch.tensor([0.9, 0.1, 0.8, 0.2])
        curated = filter_pairs(manifest(4), scores, min_score=0.5)
        assert curated.dropped[["id", "score"]].values.tolist() == [
            ["s1", pytest.approx(0.1)],
            ["s3", pytest.approx(0.2)],
        ]
        assert len(filter_pairs(manifest(4), scores, min_score=0.8).manifest) == 3 - 1
        assert len(filter_pairs(manifest(4), torch.zeros(4), keep=0.5).manifest) == 4  # ties: no row before another

    def test_nan_is_refused_because_it_would_be_the_best_pair(self):
        nan = torch.tensor([0.5, float("nan"), 0.7])
        z = gaussian(3, 2)
        broken = z.clone()
        broken[1, 0] = float("inf")  # one number of the row is enough
        for call in (
            lambda: filter_pairs(manifest(3), nan, keep=0.5),
            lambda: near_duplicate_groups(broken),
            lambda: remove_near_duplicates(manifest(3), z, scores=nan),
            lambda: subset_by_query(manifest(3), broken, z[:1], k=1),
            lambda: subset_by_query(manifest(3), z, broken[1:2], k=1),
        ):
            with pytest.raises(ValueError, match=r"NaN or infinity in 1 rows \(first: row [01]\)"):
                call()

    def test_equal_vectors_are_duplicates_at_the_threshold_one(self):
        z = gaussian(40, 257)
        twice = torch.cat([z, 3 * z])
        groups, links = near_duplicate_groups(twice, threshold=1.0)
        assert (groups[:40] == groups[40:]).all()
        assert len(set(groups)) == len(links) == 40

    def test_lengths_do_not_make_duplicates(self):
        groups, _ = near_duplicate_groups(torch.tensor([[9.0, 0.0], [9.0, 9.0], [0.1, 0.0]]), threshold=0.95)
        assert groups[0] == groups[2] != groups[1]

    @pytest.mark.parametrize("size", [3, 5, 9])
    def test_a_hub_of_many_duplicates_is_found_from_one_neighbour_on(self, size):
        z = torch.eye(size).repeat_interleave(size, 0) + 1e-4 * gaussian(size * size, size)
        groups, links = near_duplicate_groups(z, threshold=0.99, neighbours=1)
        assert len(set(groups)) == size
        assert len(links) == size * (size * (size - 1) // 2)  # every pair of each hub

    def test_a_dropped_duplicate_carries_its_largest_cosine(self):
        angles = torch.tensor([0.0, 0.01, 0.11])
        curated = remove_near_duplicates(manifest(3), torch.stack([angles.cos(), angles.sin()], 1), threshold=0.99)
        assert curated.dropped["id"].tolist() == ["s1", "s2"]
        assert curated.dropped["score"].tolist() == pytest.approx([np.cos(0.01), np.cos(0.1)], abs=1e-5)

    def test_threshold_and_share_exclude_each_other(self):
        with pytest.raises(ValueError, match="either min_score or keep"):
            filter_pairs(manifest(3), torch.zeros(3))

    def test_chains_are_one_group_and_all_links_are_found_however_many(self):
        angles = torch.linspace(0, 1.2, 13)
        chain = torch.stack([angles.cos(), angles.sin()], 1)
        far = torch.tensor([[-1.0, 0.0]]).repeat(40, 1) + 0.001 * gaussian(40, 2)
        groups, _ = near_duplicate_groups(torch.cat([chain, far]), threshold=0.99, neighbours=2)
        assert len(set(groups[:13])) == 1
        assert len(set(groups[13:])) == 1
        assert groups[0] != groups[20]

    def test_groups_equal_the_connected_components_of_all_pairs(self):
        from scipy.sparse.csgraph import connected_components

        z = unit(gaussian(300, 3, 5))
        expected = connected_components((z @ z.T >= 0.995).numpy())[1]
        got = near_duplicate_groups(z, threshold=0.995, neighbours=3)[0]
        assert len(set(zip(expected, got))) == len(set(expected)) == len(set(got))

    def test_the_best_of_each_group_stays(self):
        z = torch.eye(4).repeat_interleave(3, 0)
        scores = torch.tensor([0.0, 1, 0] * 4)
        curated = remove_near_duplicates(manifest(12), z, scores=scores)
        assert curated.manifest.frame["id"].tolist() == ["s1", "s4", "s7", "s10"]
        assert curated.dropped["reason"].iloc[0] == "near-duplicate: of s1"
        first = remove_near_duplicates(manifest(12), z)
        assert first.manifest.frame["id"].tolist() == ["s0", "s3", "s6", "s9"]

    def test_subset_by_query(self):
        z = torch.eye(5)
        curated = subset_by_query(manifest(5), z, z[[1, 3]] * 2, k=2)
        assert curated.manifest.frame["id"].tolist() == ["s1", "s3"]
        assert len(subset_by_query(manifest(5), z, z[:1], min_score=0.5).manifest) == 1
        both = subset_by_query(manifest(5), z, z[:1], k=3, min_score=0.5).manifest
        assert both.frame["id"].tolist() == ["s0"]  # not filled up with what is too far

    def test_nearest_is_by_angle_to_the_nearest_query(self):
        z = torch.tensor([[10.0, 10.0], [0.1, 0.0], [0.0, 5.0], [-1.0, 0.0]])
        for queries in (torch.tensor([[1.0, 0.0], [-0.1, 3.0]]), torch.tensor([[-0.1, 3.0], [9.0, 0.0]])):
            kept = subset_by_query(manifest(4), z, queries, k=2)
            assert kept.manifest.frame["id"].tolist() == ["s1", "s2"]
            assert kept.dropped["score"].tolist() == pytest.approx([0.7071, 0.0333], abs=0.03)

    def test_duplicates_across_splits_are_leakage(self):
        z = gaussian(20, 16)
        z[15] = z[2] * 3
        splits = ["train"] * 10 + ["test"] * 10
        with pytest.raises(LeakageError, match=r"'s2' \(train\) and 's15' \(test\)"):
            check_near_duplicates_across_splits(manifest(20, splits), z)
        check_near_duplicates_across_splits(manifest(20, ["train"] * 20), z)
        check_near_duplicates_across_splits(manifest(20, ["train"] * 10 + [""] * 10), z)  # not yet in any split
        z[16] = z[3] + 0.1 * gaussian(1, 16, 5)[0]
        with pytest.raises(LeakageError, match=r"2 near-duplicate pairs .*'s2' \(train\) and 's15' .*cosine 1\.0000"):
            check_near_duplicates_across_splits(manifest(20, splits), z, threshold=0.95)  # the closest pair is named


class TestCurateByTheSystemsMetric:
    def test_pairs_match_by_inner_product_where_lengths_count(self):
        a, b = gaussian(30, 4), gaussian(30, 4, 1)
        torch.testing.assert_close(pair_scores(a, b, metric="dot"), (a * b).sum(1))

    def test_three_modalities_match_by_the_volume_they_span(self):
        a, b, c = (unit(gaussian(30, 4, seed)) for seed in range(3))
        gram = torch.stack([a, b, c], 1).double()
        expected = -torch.linalg.det(gram @ gram.mT)
        torch.testing.assert_close(pair_scores(a, b, c, metric="volume"), expected, rtol=1e-4, atol=1e-6)

    def test_a_sample_with_several_captions_matches_by_their_mean(self):
        a, captions = gaussian(3, 4), gaussian(5, 4, 1)
        links = Links.of([[0, 4], [1], [2, 3, 4]], 5)
        cosines = unit(a) @ unit(captions).T
        expected = torch.stack([cosines[i, keys].mean() for i, keys in enumerate(([0, 4], [1], [2, 3, 4]))])
        torch.testing.assert_close(pair_scores(a, captions, relevant=links), expected)
        with pytest.raises(ValueError, match=r"1 rows have no other modality \(first: row 1\)"):
            pair_scores(a, captions, relevant=Links.of([[0], [], [2]], 5))

    def test_one_direction_in_two_lengths_is_no_duplicate_where_lengths_count(self):
        z = gaussian(1, 4) * torch.tensor([1.0, 1.0, 0.97, 2.0])[:, None]
        assert len(set(near_duplicate_groups(z)[0])) == 1
        groups, links = near_duplicate_groups(z, metric="dot")
        assert groups.tolist() == [0, 0, 0, 1]
        assert sorted(round(s, 4) for s in links["score"]) == [0.97, 0.97, 1.0]

    def test_the_long_are_near_where_lengths_count(self):
        z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [5.0, 5.0]])
        by_angle, by_product = (subset_by_query(manifest(3), z, z[:1], k=2, metric=m) for m in ("cosine", "dot"))
        assert by_angle.manifest.frame["id"].tolist() == ["s0", "s1"]
        assert by_product.manifest.frame["id"].tolist() == ["s0", "s2"]

    def test_the_verb_asks_the_system_and_follows_what_belongs_together(self):
        """Pictures and a pool of captions of which some are several pictures'."""

        class Pictures(ListSamples):
            links = Links.of([[0, 2], [1, 2]], 3)

            def relevant(self, query, key):
                return self.links if (query, key) == ("picture", "caption") else None

        pictures = Pictures([{"x": 0.0}, {"x": 1.0}])
        pictures.pools = {"caption": ListSamples([{"x": 0.0}] * 3)}
        names, rows = ["0", "1", "2"], [0, 1, 2]
        a, b = gaussian(2, 3), gaussian(3, 3, 1)
        system = SimpleNamespace(metric="dot")
        pool = Encoded(system, pictures.pools["caption"], rows, {"caption": b}, names, names, None, [])
        of_pictures = (rows[:2], {"picture": a}, names[:2], names[:2], None, [])
        encoded = Encoded(system, pictures, *of_pictures, pools={"caption": pool})
        found = _matches(encoded, score_named("dot"), [("picture", "caption")])
        torch.testing.assert_close(found, torch.stack([(a[0] @ b[[0, 2]].T).mean(), (a[1] @ b[[1, 2]].T).mean()]))
        torch.testing.assert_close(_matches(encoded, score_named("dot"), [("caption", "picture")]), found)
