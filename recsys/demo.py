"""The whole path in minutes on a laptop: one log, every baseline, figures by slice, recommendations in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd
import torch

from counterpoint.common.data import Links
from counterpoint.common.lazy import resolve
from counterpoint.common.metrics import Evaluation, Interval, paired_difference
from counterpoint.common.metrics.bootstrap import short
from counterpoint.common.progress import note
from counterpoint.common.report import Report
from counterpoint.common.runs.demonstration import Demonstration
from counterpoint.common.runs.measure import measure
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.trainers.throwaway import sample_folder
from counterpoint.common.vertical import Outcome
from counterpoint.recsys.cli import vertical
from counterpoint.recsys.commands import import_interactions, simulate
from counterpoint.recsys.data.features import ItemFeatures
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.serving import Server

WHOLE, CUT = "ranking user -> item", 20
ARMS = ("popularity", "item-knn", "lightgcn", "vbpr")
SHUFFLED = "vbpr, shuffled"


def run_demo(out: Path, seed: int, epochs: int) -> Outcome:
    """Train, evaluate, compare, recommend; writes `out/report.html`."""
    demo, root = Demonstration(out), sample_folder()
    manifest, source, colour = _data(None if root is None else root / "recsys", out / "data", seed)
    note(f"training on {source}")
    arms = {name: _trained(demo, name, manifest, seed, epochs) for name in ARMS}
    arms[SHUFFLED] = _trained(demo, "vbpr", manifest, seed, epochs, shuffled=True)
    demo.lap("training")
    note("ranking the whole catalogue for every test user")
    found = {name: measure(vertical, OpenRun.of(system), n_boot=500, seed=seed) for name, system in arms.items()}
    demo.lap("ranking")
    first = next(iter(arms.values()))
    page = demo.open("Recommendations", f"{source}; split: {first.data.split}", synthetic=bool(first.data.synthetic))
    figures = _figures(page, found, first.data)
    helped = _features_helped(page, found, arms, seed)
    _map(page, arms["lightgcn"], colour)
    _examples(page, arms["lightgcn"], seed)
    lines = [source, *(f"{name}: recall@{CUT} {interval}" for name, interval in figures.items()), helped]
    said = {name: interval.as_dict() for name, interval in figures.items()}
    again = f"counterpoint recsys recommend {quote(str(out / 'lightgcn'))} --top 50 --out lists.parquet"
    commands = [f"counterpoint recsys demo --out {quote(str(out))} --seed {seed} --epochs {epochs}", again]
    return demo.finish({"data": source, f"recall@{CUT}": said, "features": helped}, lines, commands)


@dataclass(frozen=True)
class _Shuffled:
    """A modality whose vectors stand at other items."""

    read: Any
    order: np.ndarray

    def __call__(self) -> ItemFeatures:
        return self.read().take(self.order)


def _data(folder: Path | None, out: Path, seed: int) -> tuple[Path, str, str]:
    """(manifest, what it is in words, the items' column that colours the map)."""
    if folder is not None and (folder / "lfm2k" / "lfm2k.inter").is_file():
        return _lastfm(folder / "lfm2k", out), "Last.fm-2K (HetRec 2011), tags as text, whisper vectors of sound", "tag"
    if folder is not None and (folder / "ml-latest-small" / "ratings.csv").is_file():
        return _movielens(folder / "ml-latest-small", out), "MovieLens latest-small, genres and tags", "genre"
    report = simulate(out, 1500, 800, seed)
    return report.manifest, "SYNTHETIC interactions (COUNTERPOINT_DATA is not set)", "category"


def _lastfm(folder: Path, out: Path) -> Path:
    """Last.fm-2K with its own split; the tags of an artist are its words."""
    pairs = pd.read_csv(folder / "lfm2k.inter", sep="\t")
    original = pd.read_csv(folder / "lfm2k_og_ids.inter", sep="\t")
    tags = pd.read_csv(folder / "lfm2k_text.tsv", sep="\t").set_index("artistID")["text"]
    names = dict(zip(pairs["itemID"], original["itemID"]))
    said = {item: str(tags.get(name, "")).split(",") for item, name in names.items()}
    counts = pd.Series([tag for words in said.values() for tag in words]).value_counts()
    usual = [tag for tag in counts.index if tag not in ("", "seen live")][:9][::-1]  # the rarest one tells most
    rows = [
        {"id": item, "title": f"artist {names[item]} ({', '.join(sorted(words, key=lambda w: -counts[w])[:3])})",
         "tag": next((tag for tag in usual if tag in words), "other")}
        for item, words in said.items()
    ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "artists.csv", index=False)
    table = pairs.rename(columns={"x_label": "split"})[["userID", "itemID", "split"]]
    table.to_csv(out / "log.csv", index=False)
    vectors = (f"text={folder / 'all-MiniLM-L6-v2.npy'}", f"audio={folder / 'whisper.npy'}")
    return import_interactions(out / "log.csv", out, items=out / "artists.csv", features=vectors).manifest


def _movielens(folder: Path, out: Path) -> Path:
    """MovieLens, ratings as implicit; genres as a 0/1 vector."""
    movies = pd.read_csv(folder / "movies.csv")
    genres = movies["genres"].str.get_dummies("|")
    out.mkdir(parents=True, exist_ok=True)
    vectors = pd.DataFrame({"id": movies["movieId"].astype(str), "genres": list(genres.to_numpy(np.float32))})
    vectors.to_parquet(out / "genres.parquet")
    table = movies.assign(genre=movies["genres"].str.split("|").str[0]).drop(columns="genres")
    table.to_csv(out / "movies.csv", index=False)
    (out / "log.csv").write_bytes((folder / "ratings.csv").read_bytes())
    named = (f"genres={out / 'genres.parquet'}",)
    return import_interactions(out / "log.csv", out, items=out / "movies.csv", features=named).manifest


def _trained(
    demo: Demonstration, name: str, manifest: Path, seed: int, epochs: int, shuffled: bool = False
) -> Any:
    """A system by its name, trained on the data and chosen on validation."""
    (entry,) = (entry for entry in vertical.systems if entry.name == name)
    cls: Any = resolve(entry.system)
    changes: Mapping[str, Any] = {
        **demo.training(f"{name}-shuffled" if shuffled else name, seed), "data.manifest": str(manifest),
        "train.monitor_every": 0, "train.patience": 5, "train.validate_every_epochs": max(epochs // 10, 1),
    }  # fmt: skip
    if name in ("lightgcn", "vbpr"):
        changes = {**changes, "train.max_epochs": epochs, "optim.lr": 5e-3}
    if name == "lightgcn":
        changes = {**changes, "layers": 2}
    config = override(cls.Config(), changes)
    data = None
    if shuffled:
        data = cls.read(config)
        order = np.random.default_rng(seed).permutation(len(data.log.items))
        data = replace(data, features={name: _Shuffled(read, order) for name, read in data.features.items()})
    run = fit(create_system(cls, config, data))
    return load_run(run.run_dir)


def _figures(page: Report, found: Mapping[str, Evaluation], data: InteractionData) -> dict[str, Interval]:
    """Bars of every arm, over all users and by slice."""
    log = data.log
    page.section(
        "Who finds what is held out?",
        f"{len(log):,} interactions of {len(log.users):,} users with {len(log.items):,} items. For every test user the "
        "whole catalogue is ranked, without what he met in training and validation; intervals are over users. "
        f"{SHUFFLED}: the items' features stand at other items.",
    )
    whole = {name: evaluation.results[WHOLE].intervals[f"recall@{CUT}"] for name, evaluation in found.items()}
    best = max((name for name in whole if name != "popularity"), key=lambda name: whole[name].value)
    level = whole["popularity"].value
    page.headline(
        f"Recall@{CUT}, {best}", whole[best].value, interval=whole[best], baseline=("popularity", level), percent=True
    )
    slices = [name for name in next(iter(found.values())).results if name.startswith("ranking")]
    for name in slices:
        rows = [
            (arm, i.value, i.low, i.high)
            for arm, evaluation in found.items()
            if (result := evaluation.results.get(name)) and (i := result.intervals[f"recall@{CUT}"]).known
        ]
        users = next(e.results[name].queries for e in found.values() if name in e.results)
        if rows:
            title = "all users" if name == WHOLE else name.removeprefix("ranking: ")
            page.intervals(f"Recall@{CUT}, {title} ({users} users)", rows)
    cells = [
        [arm, *(short(e.results[WHOLE].metrics[f"{m}@{CUT}"]) for m in ("ndcg", "coverage", "gini", "novelty"))]
        for arm, e in found.items()
    ]
    page.table(f"Beyond recall, at {CUT}", cells, ["system", "NDCG", "coverage", "Gini", "novelty (bits)"])
    return whole


def _features_helped(page: Report, found: Mapping[str, Evaluation], arms: Mapping[str, Any], seed: int) -> str:
    """One sentence: real against shuffled features, user by user."""
    said = []
    for name, what in ((WHOLE, "over all users"), ("ranking: tail items", "for items of the tail")):
        one, other = (found[arm].results.get(name) for arm in ("vbpr", SHUFFLED))
        if one is None or other is None or not np.array_equal(one.rows, other.rows):
            continue
        metric = f"recall@{CUT}"
        d = paired_difference(other.per_query[metric], one.per_query[metric], n=500, seed=seed)
        verdict = "helped" if d.low > 0 else "hurt" if d.high < 0 else "made no difference that these users show"
        said.append(f"{what} they {verdict} ({d.value:+.3f} {metric}, 95 % {d.low:+.3f} to {d.high:+.3f})")
    names = " and ".join(arms["vbpr"].assets["features"])
    sentence = f"Item features ({names}) in VBPR against the same features at other items, one seed: {'; '.join(said)}."
    page.section("Did the features help?", sentence)
    return sentence


def _map(page: Report, system: Any, column: str) -> None:
    page.section("The catalogue")
    items = system.catalogue
    vectors = torch.nn.functional.normalize(system.served()[1], dim=1)
    met = np.flatnonzero(system.item_counts)
    labels = [str(value or "unknown") for value in items.column(column)]
    titles = [items.words(row) or items.ids[row] for row in range(len(items))]
    page.embedding_map(
        f"Items by LightGCN's vectors, coloured by {column}", vectors[met], [labels[i] for i in met],
        [titles[i] for i in met],
    )  # fmt: skip


def _examples(page: Report, system: Any, seed: int, users: int = 5, shown: int = 5) -> None:
    """Some users in words."""
    server = Server.of(system)
    asked = OpenRun.of(system).samples()
    rows = np.random.default_rng(seed).permutation(len(asked))[:users]
    ordered = system.data.log.time is not None
    met_what = "What a user met last" if ordered else "Some of what a user met (the log has no times)"
    page.section("Some users", f"{met_what}, what is offered next (LightGCN), and what of it was held out.")
    links = asked.links_of(("train", "val"))  # of the test's users, here as links of all
    seen = Links(asked.rows[links.queries], links.keys, (system.n_users, system.n_items))
    server = replace(server, seen=seen)

    def name(item: int) -> str:
        return server.words(item) or system.items[item]

    for row in rows.tolist():
        user = int(asked.rows[row])
        items, scores = server.lists(np.array([user]), shown)
        held = set(asked.truth.of_query(row).tolist())
        met = ", ".join(name(int(item)) for item in system.sequence(user)[-4:])
        cells = [
            [rank, name(item), f"{score:.2f}", "held out" if item in held else ""]
            for rank, (item, score) in enumerate(zip(items[0].tolist(), scores[0].tolist()), 1)
        ]
        title = f"{system.users[user]} met {'' if ordered else 'among others '}{met}"
        page.table(title, cells, ["", "offered", "score", "in the test"])

