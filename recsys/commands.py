"""The vertical's own verbs as typed functions; their signatures are the command line, so imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import ImportReport, Outcome


def import_interactions(
    source: Path,
    out: Path,
    user: str = "",
    item: str = "",
    time: str = "",
    rating: str = "",
    split: str = "",
    lowest: float | None = None,
    highest: float | None = None,
    users: Path | None = None,
    items: Path | None = None,
    sets: tuple[str, ...] = (),
    features: tuple[str, ...] = (),
    feature_ids: Path | None = None,
    repeats: Literal["first", "last", "keep"] = "first",
    unknown: Literal["keep", "drop"] = "keep",
) -> ImportReport:
    """Turn SOURCE (a Parquet, CSV, TSV or JSONL file, or a folder of parts of one log) into a data set.

    Args:
        source: a file, or a folder that is searched with all folders below; all files in it are one log.
        out: folder that receives manifest.parquet (the users), items.parquet and interactions.parquet.
        user: column of the users; looked for among the usual names unless given.
        item: column of the items, likewise.
        time: column of the times (numbers or dates), likewise; `none` for no such column.
        rating: column of the ratings, likewise; `none` for no such column.
        split: column of a split that comes with the data, likewise; `none` for no such column.
        lowest: ratings below are bad rows.
        highest: ratings above are bad rows.
        users: table of users with further columns; its first column is the id.
        items: table of items (title, category, ...), likewise; items that nobody met yet get their rows too.
        sets: columns of these tables that hold several values in one text, COLUMN=SEPARATOR ('genres=|', tags=comma).
        features: vectors of the items, NAME=FILE with commas between: .npy, .parquet, or a folder that embed wrote.
        feature_ids: text file whose line i is the id of row i of a .npy; without it row i is the item called i.
        repeats: of several rows of one user and item the first counts, the last, or all.
        unknown: whether rows of ids that the tables do not list are kept or left out.
    """
    from counterpoint.recsys.data.importers import columns_of, import_tables
    from counterpoint.recsys.data.parts import Wanted

    wanted = Wanted(columns_of(user=user, item=item, time=time, rating=rating, split=split), lowest, highest)
    options = {"users": users, "items": items, "features": features, "feature_ids": feature_ids, "sets": sets}
    return import_tables(source, out, wanted, repeats=repeats, unknown=unknown, **options)


def import_recbole(
    source: Path,
    out: Path,
    user: str = "",
    item: str = "",
    time: str = "",
    rating: str = "",
    lowest: float | None = None,
    highest: float | None = None,
    features: tuple[str, ...] = (),
    feature_ids: Path | None = None,
    repeats: Literal["first", "last", "keep"] = "first",
    unknown: Literal["keep", "drop"] = "keep",
) -> ImportReport:
    """Turn SOURCE (RecBole's atomic files: NAME.inter, with NAME.item and NAME.user beside it) into a data set.

    Args:
        source: the .inter file, or a folder with one.
        out: folder that receives the data set.
        user: field of the users; user_id unless given.
        item: field of the items; item_id unless given.
        time: field of the times, timestamp unless given; `none` for no such field.
        rating: field of the ratings, likewise; `none` for no such field.
        lowest: ratings below are bad rows.
        highest: ratings above are bad rows.
        features: vectors of the items, NAME=FILE with commas between.
        feature_ids: text file whose line i is the id of row i of a .npy; without it row i is the item called i.
        repeats: of several rows of one user and item the first counts, the last, or all.
        unknown: whether rows of ids that .item and .user do not list are kept or left out.
    """
    from counterpoint.recsys.data.importers import columns_of, import_atomic
    from counterpoint.recsys.data.parts import Wanted

    columns = columns_of(user=user, item=item, time=time, rating=rating, split="none")
    wanted = Wanted(columns, lowest, highest, "atomic")
    options = {"features": features, "feature_ids": feature_ids, "repeats": repeats, "unknown": unknown}
    return import_atomic(source, out, wanted, **options)


def import_mmrec(
    source: Path,
    out: Path,
    features: tuple[str, ...] = (),
    repeats: Literal["first", "last", "keep"] = "first",
) -> ImportReport:
    """Turn SOURCE (MMRec's NAME.inter with userID, itemID and x_label 0, 1, 2) into a data set with that split.

    Args:
        source: the .inter file, or a folder with one.
        out: folder that receives the data set.
        features: vectors of the items, NAME=FILE with commas between; row i is the item called i.
        repeats: of several rows of one user and item the first counts, the last, or all.
    """
    from counterpoint.recsys.data.importers import import_atomic
    from counterpoint.recsys.data.parts import Wanted

    wanted = Wanted({"user": "userID", "item": "itemID", "split": "x_label"}, form="atomic")
    return import_atomic(source, out, wanted, features=features, feature_ids=None, repeats=repeats, unknown="keep")


def import_sequences(
    source: Path, out: Path, features: tuple[str, ...] = (), feature_ids: Path | None = None
) -> ImportReport:
    """Turn SOURCE (a text file with a user and its items in the order of time on every line) into a data set.

    Args:
        source: the .txt file.
        out: folder that receives the data set.
        features: vectors of the items, NAME=FILE with commas between.
        feature_ids: text file whose line i is the id of row i of a .npy; without it row i is the item called i.
    """
    from counterpoint.recsys.data.importers import import_lines

    return import_lines(source, out, features=features, feature_ids=feature_ids)


def import_edges(
    source: Path, out: Path, features: tuple[str, ...] = (), feature_ids: Path | None = None
) -> ImportReport:
    """Turn SOURCE (a folder with train.npy, valid.npy and test.npy, each [2, n] users and items) into a data set.

    Args:
        source: the folder, or one such file.
        out: folder that receives the data set.
        features: vectors of the items, NAME=FILE with commas between.
        feature_ids: text file whose line i is the id of row i of a .npy; without it row i is the item called i.
    """
    from counterpoint.recsys.data.importers import import_edge_arrays as run

    return run(source, out, features=features, feature_ids=feature_ids)


def check(manifest: Path) -> Outcome:
    """Read the whole data set of MANIFEST: tables, log, split and features. Exit code 2 if anything cannot be used.

    Args:
        manifest: made by `data import` or `data simulate`.
    """
    from counterpoint.recsys.data.checking import check_dataset

    return check_dataset(manifest)


def split(
    manifest: Path,
    kind: Literal["random", "leave-last-out", "time", "items"] = "random",
    train: float = 0.8,
    val: float = 0.1,
    test: float | None = None,
    seed: int = 0,
    core: int = 0,
    out: Path | None = None,
) -> Outcome:
    """Split the interactions of MANIFEST into train, val and test, and store the split with its hash.

    Args:
        manifest: made by `data import` or `data simulate`.
        kind: random (of every user), leave-last-out (of every user the last tests, the one before it validates), time
            (the latest of all test) or items (whole items are held out).
        train: share of the training split.
        val: share of the validation split.
        test: share of the test split; the rest unless given.
        seed: seed of what is drawn.
        core: users and items with fewer interactions are left out first, until none is.
        out: folder of the data set to write; FOLDER-split beside the input's unless given.
    """
    from counterpoint.recsys.data.checking import split_dataset

    shares = (train, val, round(1 - train - val, 9) if test is None else test)
    return split_dataset(manifest, kind, shares, seed, core, out)


def simulate(out: Path, users: int = 2000, items: int = 1000, seed: int = 0) -> ImportReport:
    """Write synthetic interactions of users whose tastes drift with items that have features.

    Args:
        out: folder that receives the data set.
        users: how many.
        items: how many.
        seed: the same seed gives the same data.
    """
    from counterpoint.recsys.simulate import write_simulated

    return write_simulated(out, users, items, seed)


def recommend(
    run: Path,
    user: str = "*",
    history: str = "*",
    top: int = 20,
    where: tuple[str, ...] = (),
    again: bool = False,
    index: Literal["exact", "faiss"] = "exact",
    checkpoint: Literal["best", "last"] = "best",
    manifest: Path | None = None,
    out: Path | None = None,
) -> Outcome:
    """Recommend items by RUN: to one user (--user), to somebody who is in no table (--history), or to every user as a
    Parquet file.

    Args:
        run: the run's folder, or a folder that `export` or save_pretrained wrote.
        user: the user, by id; * for every user, whose lists become a Parquet file.
        history: ids of the items that a newcomer has met, with commas between or as a JSON list of texts, which can
            name any id (["Ramones, The", "none"]); `none` for nobody's; * where no newcomer is asked for.
        top: how many items.
        where: only items whose columns meet all of these, as in category=jazz,released>=1.6e9 (also !=, <=, <, >, and ~
            for texts that contain).
        again: offer what was met before, too.
        index: compare with every item, or through a FAISS index (extra search), with what it finds of the exact lists.
        checkpoint: which weights.
        manifest: what users met and what is known of items, in place of the run's own data.
        out: the Parquet file of all users' lists; RUN/recommendations.parquet unless given.
    """
    from counterpoint.recsys.serving import recommend as run_recommend

    return run_recommend(run, user, history, top, where, again, index, checkpoint, manifest, out)


def demo(out: Path = Path("runs/recsys-demo"), seed: int = 0, epochs: int = 40) -> Outcome:
    """Train the baselines, LightGCN and VBPR on one log in minutes, and show who finds what in one HTML report.

    The log is Last.fm-2K or MovieLens under $COUNTERPOINT_DATA; without them the generator's, and the report says so.

    Args:
        out: folder of the data, the runs and report.html.
        seed: seed of weights, batches and the generator.
        epochs: passes over the training interactions.
    """
    from counterpoint.recsys.demo import run_demo

    return run_demo(out, seed, epochs)
