"""Recommendation: importing a log of many parts, ranking a whole catalogue, serving one user.

    python benchmarks/recsys.py import --rows 1e7
    python benchmarks/recsys.py rank
    python benchmarks/recsys.py serve --items 1000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch


def usage(who: int) -> tuple[float, float]:
    """(processor seconds, peak memory in GiB) so far."""
    found = resource.getrusage(who)
    return found.ru_utime + found.ru_stime, found.ru_maxrss / 2**20


def write_parts(folder: Path, rows: int, parts: int = 10, seed: int = 0) -> None:
    """A log of rows/100 users and rows/1000 items with text ids, as Parquet parts."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    users, items = max(rows // 100, 10), max(rows // 1000, 10)
    for part in range(parts):
        n = rows // parts
        user, item = rng.integers(users, size=n), (items * rng.random(n) ** 2).astype(int)
        columns = {
            "user_id": pa.array([f"user-{i}" for i in user.tolist()]),
            "item_id": pa.array([f"B{i:09d}" for i in item.tolist()]),
            "timestamp": 1.5e9 + 1e8 * rng.random(n),
            "rating": rng.integers(1, 6, size=n).astype(np.float32),
        }
        pq.write_table(pa.table(columns), folder / f"part-{part}.parquet")


def import_log(rows: int) -> None:
    """Parts to a data set, opened and split."""
    from counterpoint.common.data import isolation
    from counterpoint.recsys.commands import import_interactions
    from counterpoint.recsys.configs import InteractionsConfig
    from counterpoint.recsys.data.folder import open_dataset, prepared

    with tempfile.TemporaryDirectory() as folder:
        write_parts(Path(folder, "log"), rows)
        start, before = time.perf_counter(), usage(resource.RUSAGE_SELF)[0]
        report = import_interactions(Path(folder, "log"), Path(folder, "set"))
        isolation._end()  # so that the readers' time is counted
        mine, readers = usage(resource.RUSAGE_SELF), usage(resource.RUSAGE_CHILDREN)
        seconds = time.perf_counter() - start
        spent = f"{seconds:.1f} s, {mine[0] - before:.1f} CPU s here and {readers[0]:.1f} in the reader"
        print(f"import of {rows:,} rows: {spent}; peak {mine[1]:.2f} GiB here, {readers[1]:.2f} in the reader")
        print(report.note, len(report.rejected), "kinds of bad rows")
        before = usage(resource.RUSAGE_SELF)[0]
        data = open_dataset(report.manifest)
        opened = usage(resource.RUSAGE_SELF)
        print(f"open: {opened[0] - before:.1f} CPU s, peak {opened[1]:.2f} GiB")
        prepared(data, InteractionsConfig(split="leave-last-out"))
        split = usage(resource.RUSAGE_SELF)
        print(f"split and leakage check: {split[0] - opened[0]:.1f} CPU s, peak {split[1]:.2f} GiB")


def rank(users: int = 19_445, items: int = 7_050, per_user: int = 6, dim: int = 64) -> None:
    """All figures of a full ranking of the size of Amazon Baby, on one thread."""
    from counterpoint.common.data import Links
    from counterpoint.recsys.evaluation.measures import accuracy, hits_of
    from counterpoint.recsys.evaluation.ranking import VectorScorer, top_items

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    tables = (torch.from_numpy(rng.normal(size=(n, dim)).astype(np.float32)) for n in (users, items))
    scorer = VectorScorer(*tables)
    exclude = Links.of(list(rng.integers(items, size=(users, per_user))), items)
    truth = Links.of([[int(i)] for i in rng.integers(items, size=users)], items)
    for n in (20, 50):
        start = time.process_time()
        lists = top_items(scorer, np.arange(users), exclude, n)
        ranked = time.process_time()
        accuracy(hits_of(lists, truth), truth.counts, (10, 20))
        print(f"top {n}: {ranked - start:.2f} CPU s to rank, {time.process_time() - ranked:.2f} for the figures")


def serve(items: int, dim: int = 64, users: int = 1000) -> None:
    """One user's list among many items, exact."""
    from counterpoint.common.data import Links
    from counterpoint.recsys.evaluation.ranking import VectorScorer, top_items

    generator = torch.Generator().manual_seed(0)
    tables = (torch.randn(n, dim, generator=generator) for n in (users, items))
    scorer, seconds = VectorScorer(*tables), []
    nothing = Links.of([list(range(20))], items)
    for user in range(50):
        start = time.perf_counter()
        top_items(scorer, np.array([user]), nothing, 20)
        seconds.append(time.perf_counter() - start)
    low, middle, high = (1000 * q for q in np.quantile(seconds, [0.1, 0.5, 0.9]))
    print(f"{items:,} items: {middle:.1f} ms a user ({low:.1f} to {high:.1f} in 8 of 10)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("import", "rank", "serve"))
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    if options.what == "import":
        import_log(int(options.rows))
    elif options.what == "rank":
        rank()
    else:
        serve(options.items)


if __name__ == "__main__":
    main()
