"""Sharded streams and near-duplicates."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.common.data import (
    Cache,
    Manifest,
    ManifestDataset,
    ShardReader,
    ShardShuffleSampler,
    check_near_duplicates,
    index_shards,
    near_duplicates,
    write_shards,
)
from counterpoint.common.errors import InputError, LeakageError


def npy(x):
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


def samples(n):
    for i in range(n):
        facts = {"group": f"g{i // 3}", "split": "train"}
        yield {"id": f"s{i}", **facts}, {"npy": npy(np.full(3, i)), "json": json.dumps(facts).encode()}


def load(row):
    return {"x": torch.from_numpy(np.load(io.BytesIO(row["files"]["npy"]), allow_pickle=False))}


def test_a_stream_is_read_by_position(tmp_path):
    write_shards(samples(25), tmp_path, per_shard=10)
    assert sorted(p.name for p in tmp_path.glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    table = Manifest.load(tmp_path / "manifest.parquet")
    dataset = ManifestDataset(table, load, stream=True)
    for i in (24, 0, 13):
        assert dataset[i]["x"].tolist() == [i] * 3
        assert (dataset[i]["index"], dataset[i]["group"]) == (i, f"g{i // 3}")


def test_a_shard_holds_as_many_samples_as_asked(tmp_path):
    table = write_shards(samples(25), tmp_path, per_shard=10)
    assert table.frame["shard"].value_counts().to_dict() == {"000000.tar": 10, "000001.tar": 10, "000002.tar": 5}
    with pytest.raises(InputError, match="at least one file"):
        write_shards([({"id": "a"}, {})], tmp_path / "x")


def test_names_end_at_the_first_dot_and_folders_keep_samples_apart(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, content in (("a/1.seg.png", b"one"), ("a/1.txt", b"two"), ("b/1.seg.png", b"three")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    table = index_shards([str(tmp_path / "s.tar")])
    reader = ShardReader(table)
    assert {table.row(i)["id"]: reader.files(table.row(i)) for i in range(2)} == {
        "a/1": {"seg.png": b"one", "txt": b"two"},
        "b/1": {"seg.png": b"three"},
    }


def test_shards_behind_urls_are_told_apart(tmp_path):
    pytest.importorskip("webdataset")
    write_shards(samples(4), tmp_path / "far", per_shard=2)
    urls = [f"pipe:cat {tmp_path / 'far' / f'00000{i}.tar'}" for i in range(2)]
    table = index_shards(urls, Cache(tmp_path / "cache"), schemes=("pipe",))
    assert table.frame["id"].tolist() == ["s0", "s1", "s2", "s3"]


def test_webdataset_reads_our_shards_and_we_read_its(tmp_path):
    wds = pytest.importorskip("webdataset")
    write_shards(samples(5), tmp_path)
    read = list(wds.WebDataset(str(tmp_path / "000000.tar"), shardshuffle=False))
    assert [s["__key__"] for s in read] == [f"s{i}" for i in range(5)]
    with wds.TarWriter(str(tmp_path / "other.tar")) as sink:
        sink.write({"__key__": "k", "json": {"group": "p", "split": "test"}, "npy": np.arange(3)})
    table = index_shards([str(tmp_path / "other.tar")])
    assert table.row(0)["group"] == "p"
    dataset = ManifestDataset(table, load, stream=True)
    assert dataset[0]["x"].tolist() == [0, 1, 2]


def test_a_shard_behind_a_url_is_copied_once(tmp_path):
    pytest.importorskip("webdataset")
    write_shards(samples(4), tmp_path / "far")
    url = f"pipe:cat {tmp_path / 'far' / '000000.tar'}"
    cache = Cache(tmp_path / "cache")
    table = index_shards([url], cache, schemes=("pipe",))
    (tmp_path / "far" / "000000.tar").unlink()
    assert np.load(io.BytesIO(ShardReader(table, cache, ("pipe",)).files(table.row(2))["npy"])).tolist() == [2] * 3
    with pytest.raises(InputError, match="cannot be read"):
        ShardReader(table, Cache(tmp_path / "empty"), ("pipe",)).files(table.row(2))


def test_broken_shards_are_named(tmp_path):
    write_shards(samples(3), tmp_path)
    file = tmp_path / "000000.tar"
    table = Manifest.load(tmp_path / "manifest.parquet")
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"row 3 \(id s2\): .*000000.tar: cut short"):
        ManifestDataset(table, load, stream=True)[2]
    file.unlink()
    with pytest.raises(InputError, match="no such shard"):
        ManifestDataset(table, load, stream=True)[0]
    with pytest.raises(InputError, match="has at least one file"):
        write_shards([({"id": "a.b"}, {})], tmp_path / "x")


def test_any_id_has_its_sample_in_a_shard(tmp_path):
    ids = ["../../x", "a/b", "a.b", "CON", "é" * 300, "%", "a%2Fb"]
    write_shards([({"id": name}, {"txt": name.encode()}) for name in ids], tmp_path / "s")
    table = Manifest.load(tmp_path / "s" / "manifest.parquet")
    assert [ShardReader(table).files(table.row(i))["txt"].decode() for i in range(len(ids))] == ids
    with tarfile.open(tmp_path / "s" / "000000.tar") as archive:
        assert not any("/" in name or name.startswith(".") for name in archive.getnames())


def test_windowed_shuffle_covers_everything_and_touches_few_shards():
    shards = np.repeat(np.arange(10), 20)
    sampler = ShardShuffleSampler(shards, 8, window=2)
    batches = sampler.batches(0)
    flat = np.concatenate(batches)
    assert sorted(flat.tolist()) == list(range(200))
    first_use = [int(np.argmax(shards[flat] == s)) for s in range(10)]
    last_use = [199 - int(np.argmax(shards[flat][::-1] == s)) for s in range(10)]
    assert max(last - first for first, last in zip(first_use, last_use)) < 40  # a shard is open for one window
    assert not np.array_equal(flat, np.concatenate(sampler.batches(1)))
    one_by_one = ShardShuffleSampler(shards, 8, window=1)
    opened = {tuple(dict.fromkeys(shards[np.concatenate(one_by_one.batches(epoch))])) for epoch in range(3)}
    assert len(opened) == 3  # the order of the shards is another one each epoch
    line = np.concatenate(one_by_one.batches(0))
    assert all((np.diff(line[shards[line] == s]) < 0).any() for s in range(10))  # and so is that within a shard


def test_near_duplicates_across_splits_are_found_and_within_them_ignored():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 16, generator=generator)
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    ids = [f"s{i}" for i in range(60)]
    assert near_duplicates(z, ids, splits) == []
    z[55] = 3 * z[4] + 0.01 * torch.randn(16, generator=generator)  # test like train, at another length
    z[41] = z[40]  # within val: no leakage
    z[45] = z[58]  # val like test
    found = near_duplicates(z, ids, splits)
    assert {(d.id, d.other) for d in found} == {("s55", "s4"), ("s45", "s58"), ("s58", "s45")}
    assert found[0].cosine == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(LeakageError, match="3 sample.s. have a near-duplicate in another split"):
        check_near_duplicates(z, ids, splits)
    assert [d.cosine for d in found] == sorted((d.cosine for d in found), reverse=True)
    # Samples in no split are left out, and the others keep their names.
    z[45], splits[4] = z[44] + 1, ""
    z[3], splits[0] = z[50], ""
    assert {(d.id, d.other) for d in near_duplicates(z, ids, splits)} == {("s50", "s3")}


def test_near_duplicates_refuse_nan_and_find_equal_vectors_at_threshold_one():
    z = torch.randn(60, 257, generator=torch.Generator().manual_seed(1))
    z[30:] = 2 * z[:30]
    ids, splits = [f"s{i}" for i in range(60)], ["train"] * 30 + ["test"] * 30
    assert len(near_duplicates(z, ids, splits, threshold=1.0)) == 30
    z[7, 0] = float("nan")
    with pytest.raises(ValueError, match="'s7' holds NaN"):
        near_duplicates(z, ids, splits)


@pytest.mark.parametrize(
    "shard", ["pipe:touch {0}/run", " PIPE:touch {0}/run", "file://{0}/s.tar", "../s.tar", "{0}/s.tar"]
)
def test_a_manifest_runs_nothing_and_reads_nothing_outside(tmp_path, shard, monkeypatch):
    folder = tmp_path / "data"
    write_shards(samples(2), folder)
    (folder / "000000.tar").rename(tmp_path / "s.tar")
    table = Manifest.load(folder / "manifest.parquet")
    table.frame["shard"] = shard.format(tmp_path)
    with pytest.raises(InputError, match="a manifest names shards by|leads out of the manifest's folder"):
        ShardReader(table, Cache(tmp_path / "cache")).files(table.row(0))
    assert not (tmp_path / "run").exists()
    if ":" not in shard:
        monkeypatch.setenv("COUNTERPOINT_ALLOW", f"some.module, {tmp_path}")
        assert ShardReader(replace(table)).files(table.row(0))
