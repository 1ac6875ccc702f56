"""Search finds what brute force finds; curation keeps what it should and says what went."""

import numpy as np
import pytest
import torch

from counterpoint.common.data import Manifest
from counterpoint.common.data.curate import (
    check_near_duplicates_across_splits,
    filter_pairs,
    near_duplicate_groups,
    pair_scores,
    remove_near_duplicates,
    subset_by_query,
)
from counterpoint.common.data.embeddings import embed_to_parquet
from counterpoint.common.data.search import Index, search
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.metrics import auroc


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
    return embed_to_parquet(Identity(), rows, tmp_path, batch_size=30), z


class TestIndex:
    def test_exact_equals_sorting_all_cosines(self):
        z, q = gaussian(200, 8), gaussian(5, 8, 1)
        index = Index(z, [str(i) for i in range(200)])
        expected = (unit(q) @ unit(z).T).sort(1, descending=True)
        for i, hits in enumerate(index.search(q, 7)):
            assert [h.row for h in hits] == expected.indices[i, :7].tolist()
            assert [h.score for h in hits] == pytest.approx(expected.values[i, :7].tolist(), abs=1e-6)

    def test_more_neighbours_than_vectors_gives_all(self):
        assert len(Index(gaussian(3, 2), ["a", "b", "c"]).search(gaussian(1, 2), 10)[0]) == 3

    @pytest.mark.parametrize("kind", ["exact", "faiss"])
    def test_saving_and_loading_finds_the_same(self, tmp_path, kind):
        if kind == "faiss":
            pytest.importorskip("faiss", reason="the search extra (faiss) is not installed")
        index = Index(gaussian(400, 8), [f"s{i}" for i in range(400)], kind=kind)
        index.save(tmp_path)
        again = Index.load(tmp_path)
        assert again.kind == kind
        assert again.search(gaussian(4, 8, 2), 5) == index.search(gaussian(4, 8, 2), 5)

    def test_faiss_recall_is_measured_and_grows_with_the_cells_searched(self):
        pytest.importorskip("faiss", reason="the search extra (faiss) is not installed")
        z, ids = gaussian(3000, 16), [str(i) for i in range(3000)]
        few, all_cells = (Index(z, ids, kind="faiss", nlist=40, nprobe=p) for p in (1, 40))
        assert few.recall() < 0.9
        assert all_cells.recall() == 1.0

    def test_wrong_dimension_and_unknown_id_are_clear(self):
        index = Index(gaussian(5, 4), [f"piece-{i}" for i in range(5)])
        with pytest.raises(InputError, match="3 dimensions, the index 4"):
            index.search(gaussian(1, 3))
        with pytest.raises(InputError, match="did you mean 'piece-3'"):
            index.row("piece3")


class TestSearch:
    def test_by_id_across_modalities_may_find_its_own_partner_but_not_itself(self, store):
        folder, _ = store
        (across,) = search(folder, ids=["s4"], source="audio", target="sheet", k=3)
        assert across.hits[0].id == "s5"  # the sheet of s5 is the audio of s4 in this toy
        (within,) = search(folder, ids=["s4"], target="audio", k=3)
        assert "s4" not in [h.id for h in within.hits]
        assert len(within.hits) == 3

    def test_by_file_and_by_vector(self, store, tmp_path):
        folder, z = store
        file = tmp_path / "mine.txt"
        file.write_text("7")
        by_file = search(folder, target="audio", files=[file], encode=lambda p: z[int(p.read_text())], k=1)
        assert by_file[0].hits[0].id == "s7"
        assert search(folder, target="audio", vectors=z[9:10], k=1)[0].hits[0].id == "s9"

    def test_what_is_missing_is_said(self, store):
        folder, _ = store
        with pytest.raises(InputError, match="audio, sheet"):
            search(folder, ids=["s1"])
        with pytest.raises(InputError, match="nothing to search for"):
            search(folder, target="audio")


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

    def test_duplicates_across_splits_are_leakage(self):
        z = gaussian(20, 16)
        z[15] = z[2] * 3
        splits = ["train"] * 10 + ["test"] * 10
        with pytest.raises(LeakageError, match=r"'s2' \(train\) and 's15' \(test\)"):
            check_near_duplicates_across_splits(manifest(20, splits), z)
        check_near_duplicates_across_splits(manifest(20, ["train"] * 20), z)
