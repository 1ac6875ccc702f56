"""Facts learnt once travel as plain files with a run, its checkpoints and its saved models; tables grow by them."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from counterpoint.common.data.samples import ListSamples
from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.trainers import (
    Assets,
    ContrastiveSystem,
    Datasets,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
    create_system,
    fit,
    from_pretrained,
    load_run,
    override,
    save_pretrained,
)


def infinite():
    return OptimConfig(lr=1e-2, schedule=ScheduleConfig(kind="infinite", warmup=1, cooldown=1, constant=0.5, decay=2))


@dataclass(frozen=True)
class WordsConfig:
    words: str = "a b c d e f g h"
    dim: int = 4
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=4, max_epochs=3, monitor_every=0, tensorboard=False)
    )
    optim: OptimConfig = field(default_factory=infinite)


class Words(ContrastiveSystem):
    """A table of word vectors whose rows are the training split's words."""

    Config = WordsConfig
    modalities = ("word",)
    reads = 0

    def __init__(self, config, assets):
        super().__init__(config, assets)
        self.table = nn.Embedding(len(assets["words"]), config.dim)
        self.loss = InfoNCE(0.5)

    @classmethod
    def read(cls, config, assets=None):
        Words.reads += 1
        return config.words.split()

    @classmethod
    def learn(cls, config, data):
        return Assets(words=sorted(set(data)))

    @classmethod
    def extend(cls, assets, config, data):
        return assets.replace(words=[*assets["words"], *sorted(set(data) - set(assets["words"]))])

    def grow(self, assets):
        old = self.table.weight.data
        self.table = nn.Embedding(len(assets["words"]), self.config.dim)
        self.table.weight.data[: len(old)] = old

    def datasets(self):
        places = {word: i for i, word in enumerate(self.assets["words"])}
        return Datasets(ListSamples([{"x": torch.tensor(places[w]), "id": w} for w in self.data if w in places]))

    def embed(self, batch):
        z = self.table(batch["x"])
        return {"word": z, "again": z + 0.1}

    def losses(self, batch, embeddings):
        return {"contrast": self.loss(embeddings["word"], embeddings["again"])}


def trained(out, **changes):
    return fit(create_system(Words, override(WordsConfig(), {"train.out": str(out), **changes}))).run_dir


def test_assets_come_back_equal(tmp_path):
    facts = Assets(n=3, names=("a", "b"), mean=np.arange(3.0), tokenizer=b"{}", **{"tokenizer.json": b"[1]"})
    folder = facts.save(tmp_path / "assets")
    assert {p.name for p in folder.iterdir()} == {"assets.json", "mean.npy", "tokenizer.bin", "tokenizer.json"}
    again = Assets.load(folder)
    assert again == facts
    assert again["names"] == facts["names"] == ["a", "b"]
    assert again["tokenizer.json"] == b"[1]"
    assert again["mean"].dtype == np.float64
    assert Assets(**facts.within("base")).part("base") == facts
    assert Assets(n=3) != Assets(n=4)
    assert facts.recipe()["tokenizer"] == "file of 2 bytes"


@pytest.mark.parametrize("value", [object(), float("nan"), np.array([None]), {1, 2}])
def test_what_cannot_be_kept_is_refused_at_once(value):
    with pytest.raises(TypeError, match="asset 'x'"):
        Assets(x=value)
    with pytest.raises(ValueError, match="an asset's name"):
        Assets(**{"../x": 1})


@pytest.mark.parametrize("name", ["assets.json", "mean.npy", "tokenizer.bin"])
def test_damaged_files_end_in_a_sentence(name, tmp_path):
    folder = Assets(n=3, mean=np.arange(30.0), tokenizer=b"abcdefgh").save(tmp_path / "assets")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        Assets.load(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match="missing"):
        Assets.load(folder)


def test_an_index_cannot_name_files_elsewhere(tmp_path):
    (tmp_path / "secret").write_bytes(b"abc")
    folder = Assets(token=b"abc").save(tmp_path / "assets")
    record = json.loads((folder / "assets.json").read_text())
    record["files"]["token"]["file"] = "../secret"
    (folder / "assets.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="missing"):
        Assets.load(folder)


def test_facts_are_learnt_once_and_loading_reads_no_data(tmp_path):
    run = trained(tmp_path / "run")
    Words.reads = 0
    system = load_run(run)
    assert Words.reads == 0
    assert system.assets["words"] == list("abcdefgh")
    folder = save_pretrained(system, tmp_path / "model")
    assert from_pretrained(folder).assets == system.assets
    assert Words.reads == 0
    assert fit(load_run(run, "last"), resume=run).run_dir == run


def test_a_run_without_its_assets_or_with_anothers_is_refused(tmp_path):
    run = trained(tmp_path / "run")
    Assets(words=list("hgfedcba")).save(run / "assets")
    with pytest.raises(InputError, match="belongs to other assets/"):
        load_run(run)
    for file in (run / "assets").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"assets.json: missing"):
        load_run(run)
    (run / "assets").rmdir()
    with pytest.raises(InputError, match="older version of counterpoint wrote it"):
        load_run(run)


def test_tables_grow_and_old_rows_keep_their_bits(tmp_path):
    first = trained(tmp_path / "first")
    constant = load_file(first / "checkpoints/const/model.safetensors")["table.weight"]
    config = override(WordsConfig(), {"words": "h i j a k l", "train.out": str(tmp_path / "second")})
    system = create_system(Words, config, continue_from=first)
    assert system.assets["words"] == list("abcdefghijkl")
    assert torch.equal(system.table.weight[:8], constant)
    second = fit(system).run_dir
    grown = load_run(second, "last")
    assert grown.table.weight.shape == (12, 4)
    moments = load_file(second / "checkpoints/last/state.safetensors")
    assert any(value.shape == (12, 4) for value in moments.values())
    assert fit(load_run(second, "last"), resume=second).run_dir == second
    with pytest.raises(InputError, match="holds a run of"):
        create_system(Other, config, continue_from=first)


class Other(Words):
    """Another class, so that runs can be mixed up."""


def test_data_that_were_looked_at_for_new_facts_are_read_again_in_the_runs_form(tmp_path):
    """`read` without assets gives the data's own form: fit for learning from, not for training on."""
    first = trained(tmp_path / "first")
    config = override(WordsConfig(), {"words": "h i j", "train.out": str(tmp_path / "second")})
    system = create_system(Words, config, continue_from=first)
    Words.reads = 0
    assert system.data == ["h", "i", "j"]
    assert Words.reads == 1
    assert create_system(Words, config, ["a", "z"], continue_from=first).data == ["a", "z"]
