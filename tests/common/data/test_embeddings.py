"""Embeddings on disk: complete, ordered, resumable, filled by several processes, none counted twice."""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from counterpoint.common import metrics
from counterpoint.common.data import BadSample, ListSamples, Manifest, ManifestDataset
from counterpoint.common.data.embeddings import EmbeddingStore, embed_to_parquet, model_hash
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.errors import InputError


class Towers(torch.nn.Module):
    """Two modalities, two dimensions; counts the samples it encodes."""

    def __init__(self, seed=0, pause=0.0):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = torch.nn.Linear(3, 4), torch.nn.Linear(3, 5)
        self.seen, self.pause = 0, pause

    def encode(self, batch):
        time.sleep(self.pause)
        self.seen += len(batch["x"])
        return {"audio": self.a(batch["x"]), "sheet": self.b(batch["x"])}


def samples(n, bad=()):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    table = Manifest.from_rows([{"id": f"s{i}", "group": f"g{i // 3}", "label": i % 4, "x": i} for i in range(n)])

    def load(row):
        if row["x"] in bad:
            raise InputError(f"row {row['id']}: broken file")
        return {"x": x[row["x"]]}

    return ManifestDataset(table, load, on_error="skip"), x


@pytest.mark.parametrize(("n", "shard", "batch"), [(103, 10, 4), (7, 100, 3), (20, 10, 10), (1, 1, 1)])
def test_every_row_once_in_order_for_any_division(tmp_path, n, shard, batch):
    dataset, x = samples(n)
    system = Towers()
    store = embed_to_parquet(system, dataset, tmp_path, metadata=["label"], batch_size=batch, shard_size=shard)
    assert system.seen == n == len(store)
    assert store.ids == [f"s{i}" for i in range(n)]
    assert store.frame["label"].tolist() == [i % 4 for i in range(n)]
    assert store.frame["group"].tolist() == [f"g{i // 3}" for i in range(n)]
    torch.testing.assert_close(store.vectors("audio"), system.a(x).detach())
    torch.testing.assert_close(store.vectors("sheet"), system.b(x).detach())


def test_a_second_run_does_nothing_and_a_lost_shard_is_made_again(tmp_path):
    dataset, _ = samples(50)
    system = Towers()
    embed_to_parquet(system, dataset, tmp_path, shard_size=10)
    embed_to_parquet(system, dataset, tmp_path, shard_size=10)
    assert system.seen == 50
    (tmp_path / "part-00002.parquet").unlink()
    with pytest.raises(InputError, match="1 of 5 shards"):
        EmbeddingStore(tmp_path).vectors("audio")
    embed_to_parquet(system, dataset, tmp_path, shard_size=10)
    assert system.seen == 60


def worker(folder, pause, queue, n=60, shard=5, batch=5):
    dataset, _ = samples(n)
    system = Towers(pause=pause)
    embed_to_parquet(system, dataset, folder, shard_size=shard, batch_size=batch)
    queue.put(system.seen)


def test_two_processes_share_the_work_without_counting_twice(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=worker, args=(tmp_path, 0.01, queue)) for _ in range(2)]
    for w in workers:
        w.start()
    seen = [queue.get(timeout=240) for _ in workers]
    for w in workers:
        w.join()
    # A process that skipped a claimed shard leaves it to its owner, so together they saw each sample once.
    assert sum(seen) == 60
    store = EmbeddingStore(tmp_path)
    assert store.missing == []
    assert sorted(store.ids) == sorted(f"s{i}" for i in range(60))


def test_evaluation_of_a_set_that_neither_batches_nor_shards_nor_processes_divide(tmp_path):
    """61 samples, 2 processes, shards of 7, batches of 3: no padded sample is counted, none is missing."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=worker, args=(tmp_path, 0.01, queue, 61, 7, 3)) for _ in range(2)]
    for w in workers:
        w.start()
    assert sum(queue.get(timeout=240) for _ in workers) == 61
    for w in workers:
        w.join()
    store = EmbeddingStore(tmp_path)
    _, x = samples(61)
    together = Towers().eval().encode({"x": x})
    labels = [i % 4 for i in range(61)]
    split = metrics.Split({"audio": store.vectors("audio")}, labels, store.frame["group"].to_numpy())
    whole = metrics.Split({"audio": together["audio"].detach()}, labels, [f"g{i // 3}" for i in range(61)])
    got, expected = (metrics.evaluate_features(s, protocols=["knn", "labelfree"], n_boot=5) for s in (split, whole))
    assert got.samples == {"test": 61}
    assert got.results["knn of audio"].as_dict() == expected.results["knn of audio"].as_dict()
    assert got.results["labelfree of audio"].rankme == pytest.approx(expected.results["labelfree of audio"].rankme)


def test_a_killed_process_leaves_no_lock_behind(tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=worker, args=(tmp_path, 0.2, context.Queue()))
    process.start()
    while not list(tmp_path.glob("part-*")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert EmbeddingStore(tmp_path).missing
    dataset, x = samples(60)
    system = Towers()
    store = embed_to_parquet(system, dataset, tmp_path, shard_size=5, batch_size=5)
    torch.testing.assert_close(store.vectors("audio"), system.a(x).detach())


def test_unreadable_samples_are_listed_with_their_reasons(tmp_path):
    dataset, _ = samples(12, bad=(3, 4, 5, 11))
    assert isinstance(dataset[3], BadSample)
    many = r"[1-3] of 12 samples could not be read, more than a share of 0.01 \(--train.max_bad\); "
    with pytest.raises(InputError, match=many):
        embed_to_parquet(Towers(), dataset, tmp_path, shard_size=3, batch_size=2)
    dataset.max_bad = 0.5
    store = embed_to_parquet(Towers(), dataset, tmp_path, shard_size=3, batch_size=2)
    assert len(store) == 8
    assert store.frame["row"].tolist() == [0, 1, 2, 6, 7, 8, 9, 10]  # places in the data set
    assert [name for name, _ in store.left_out] == ["s3", "s4", "s5", "s11"]
    assert "broken file" in store.left_out[0][1]


def test_another_model_or_other_data_may_not_be_mixed_in(tmp_path):
    dataset, _ = samples(6)
    embed_to_parquet(Towers(), dataset, tmp_path, shard_size=2)
    with pytest.raises(InputError, match="another model"):
        embed_to_parquet(Towers(seed=1), dataset, tmp_path, shard_size=2)
    with pytest.raises(InputError, match="other data"):
        embed_to_parquet(Towers(), samples(5)[0], tmp_path, shard_size=2)
    with pytest.raises(InputError, match="begun with --shard 2 and no --columns"):
        embed_to_parquet(Towers(), dataset, tmp_path, shard_size=3)


def test_columns_may_be_empty_or_of_other_numbers_in_a_whole_shard(tmp_path):
    labels = [None, None, 3, None, 0.5, 2]
    table = Manifest.from_rows([{"id": f"s{i}", "name": "x" if i > 3 else None} for i in range(6)])

    def load(row):
        place = int(row["id"][1:])
        return {"x": torch.ones(3), "label": labels[place]}

    store = embed_to_parquet(
        Towers(), ManifestDataset(table, load), tmp_path, metadata=["label", "name"], batch_size=2, shard_size=2
    )
    assert [None if v != v else v for v in store.frame["label"]] == labels
    assert store.frame["name"].isna().tolist() == [True] * 4 + [False] * 2


def test_samples_are_embedded_without_dropout_whatever_the_mode(tmp_path):
    class Noisy(Towers):
        def encode(self, batch):
            return {"audio": torch.nn.functional.dropout(self.a(batch["x"]), 0.5, self.training)}

    dataset, x = samples(5)
    system = Noisy().train()
    torch.testing.assert_close(embed_to_parquet(system, dataset, tmp_path).vectors(), system.a(x).detach())


def test_a_shard_of_another_model_is_not_read(tmp_path):
    dataset, _ = samples(6)
    for name, seed in (("one", 0), ("two", 1)):
        embed_to_parquet(Towers(seed=seed), dataset, tmp_path / name, shard_size=3)
    (tmp_path / "two" / "part-00001.parquet").replace(tmp_path / "one" / "part-00001.parquet")
    with pytest.raises(InputError, match=r"part-00001\.parquet: this shard was made by another model"):
        EmbeddingStore(tmp_path / "one").vectors("audio")


def test_the_data_are_known_by_their_content_and_by_how_they_are_read(tmp_path):
    x = torch.ones(2, 3)

    def dataset(label, **reading):
        table = Manifest.from_rows([{"id": f"s{i}", "label": label} for i in range(2)])
        return ManifestDataset(table, lambda row: {"x": x[0]}, reading=reading)

    embed_to_parquet(Towers(), dataset("a"), tmp_path / "m")
    with pytest.raises(InputError, match="other data"):
        embed_to_parquet(Towers(), dataset("b"), tmp_path / "m")  # as many samples, other labels
    embed_to_parquet(Towers(), dataset("a", seconds=4), tmp_path / "n")
    with pytest.raises(InputError, match="other data"):  # the same rows, read in another way
        embed_to_parquet(Towers(), dataset("a", seconds=8), tmp_path / "n")


def of_files(folder):
    """Three samples read from files of one size."""
    for i in range(3):
        np.save(folder / f"{i}.npy", np.full(3, i, dtype=np.float32))
    table = Manifest.from_rows([{"id": f"s{i}", "said": "0", "file": f"{i}.npy"} for i in range(3)], folder)
    return ManifestDataset(table, lambda row: {"x": torch.from_numpy(np.load(folder / row["file"]))})


def test_a_longer_file_is_other_data_and_a_changed_one_of_the_same_size_is_told(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    first = of_files(data)
    embed_to_parquet(Towers(), first, out)
    for name in ("same", "again"):
        assert embed_to_parquet(Towers(), ManifestDataset(first.manifest, first.load), out).info.samples == 3, name
    np.save(data / "1.npy", np.full(3, 9, dtype=np.float32))
    changed = ManifestDataset(first.manifest, first.load)
    assert changed.hash == first.hash
    with pytest.raises(InputError, match="was written anew since these embeddings were begun, .*; delete"):
        embed_to_parquet(Towers(), changed, out)
    np.save(tmp_path / "old.npy", np.full(3, 7, dtype=np.float32))
    os.utime(tmp_path / "old.npy", (1, 1))
    embed_to_parquet(Towers(), changed, tmp_path / "second")
    os.replace(tmp_path / "old.npy", data / "2.npy")  # an old file, put there now
    with pytest.raises(InputError, match="written anew"):
        embed_to_parquet(Towers(), ManifestDataset(first.manifest, first.load), tmp_path / "second")
    np.save(data / "1.npy", np.zeros(4, dtype=np.float32))
    longer = ManifestDataset(first.manifest, first.load)
    assert longer.hash != first.hash
    part = first.manifest.select(id="s0")
    assert ManifestDataset(part, first.load).written != longer.written  # of its own rows


def test_a_copy_of_the_files_elsewhere_is_the_same_data(tmp_path):
    hashes = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        hashes.add(of_files(tmp_path / name).hash)
    assert len(hashes) == 1
    (tmp_path / "there" / "0.npy").unlink()
    first = Manifest.from_rows([{"id": f"s{i}", "said": "0", "file": f"{i}.npy"} for i in range(3)], tmp_path / "there")
    assert ManifestDataset(first, of_files).hash not in hashes


def test_model_hash_tells_names_and_shapes_apart():
    def layer(name, *shape):
        module = torch.nn.Module()
        module.register_buffer(name, torch.zeros(shape))
        return model_hash(module)

    assert len({layer("a", 2, 3), layer("b", 2, 3), layer("a", 3, 2), layer("a", 6)}) == 4


class TestEncodeRows:
    def rows(self, n=7):
        x = torch.arange(n).float()[:, None].repeat(1, 3)
        return ListSamples([{"x": x[i], "id": f"s{i}", "group": f"g{i // 2}"} for i in range(n)])

    def test_positions_are_places_in_the_data_set_and_reach_the_change(self):
        system, seen = Towers().eval(), []

        def change(batch, positions):
            seen.extend(positions)
            return {**batch, "x": batch["x"] + 100}

        class Broken(ListSamples):
            max_bad = 0.5

            def __getitem__(self, position):
                return BadSample(4, "s4", "broken") if position == 4 else super().__getitem__(position)

        data = Broken(self.rows().samples)
        found = encode_rows(system, data, [6, 4, 1, 2], change=change, batch_size=3)
        assert found.positions == seen == [6, 1, 2]
        assert found.groups == ["g3", "g0", "g1"]
        assert found.left_out == [("s4", "broken")]
        expected = system.a(torch.tensor([[106.0] * 3, [101.0] * 3, [102.0] * 3])).detach()
        torch.testing.assert_close(found.vectors["audio"], expected)

    def test_a_system_that_loses_a_row_or_a_modality_is_caught(self):
        class Loses(torch.nn.Module):
            def encode(self, batch):
                return {"audio": batch["x"][1:]}

        class Forgets(torch.nn.Module):
            def encode(self, batch):
                return {"audio": batch["x"]} | ({"sheet": batch["x"]} if float(batch["x"][0, 0]) < 2 else {})

        with pytest.raises(ValueError, match="made 2 audio embeddings of 3 samples"):
            encode_rows(Loses(), self.rows(), range(3))
        with pytest.raises(ValueError, match=r"\['audio', 'sheet'\] in one batch and \['audio'\] in another"):
            encode_rows(Forgets(), self.rows(), range(4), batch_size=2)


def test_shards_carry_the_model_hash_for_other_readers(tmp_path):
    system = Towers()
    embed_to_parquet(system, samples(3)[0], tmp_path)
    facts = pq.read_schema(tmp_path / "part-00000.parquet").metadata
    assert facts[b"model_hash"].decode() == model_hash(system)
    assert json.loads((tmp_path / "embeddings.json").read_text())["samples"] == 3


def test_a_nan_embedding_names_its_sample(tmp_path):
    system = Towers()
    system.b.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="'s0': its sheet embedding"):
        embed_to_parquet(system, samples(3)[0], tmp_path)


def test_model_hash_sees_one_changed_weight_and_ignores_the_mode():
    system = Towers()
    before = model_hash(system)
    assert model_hash(system.eval()) == before
    system.a.weight.data[0, 0] += 1e-6
    assert model_hash(system) != before


def test_training_mode_is_restored(tmp_path):
    system = Towers().train()
    embed_to_parquet(system, samples(3)[0], tmp_path)
    assert system.training


def test_a_folder_without_embeddings_says_so(tmp_path):
    with pytest.raises(InputError, match=r"no embeddings\.json"):
        EmbeddingStore(tmp_path)
