"""A manifest of ten million rows: opened, hashed, held to its split, made a data set of.

    python benchmarks/manifest.py [--rows 10000000]

Each figure is CPU time, and the peak memory of the whole process so far. PyTorch is imported for the data set only.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write(path: Path, rows: int) -> None:
    i = np.arange(rows)
    text = i.astype(str)
    table = {
        "id": np.char.add("s", text),
        "group": np.char.add("g", (i // 10).astype(str)),
        "split": np.where(i // 10 % 10 == 0, "test", "train"),
        "label": (i % 7).astype(np.int32),
        "file": np.char.add(np.char.add("f/", text), ".npy"),
    }
    pq.write_table(pa.table(table), path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.parquet"
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(file, options.rows))
        writer.start()  # a process of its own: its memory is not this one's
        writer.join()
        measure(file)


def measure(file: Path) -> None:
    from counterpoint.common.data import Manifest, check_leakage

    start = time.process_time()

    def said(what: str) -> None:
        nonlocal start
        now = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what:10} {now - start:6.2f} CPU-s   peak {peak:.2f} GiB")
        start = time.process_time()

    manifest = Manifest.load(file)
    said("open")
    _ = manifest.hash
    said("hash")
    check_leakage(manifest)
    said("leakage")
    from counterpoint.common.data import ManifestDataset

    start = time.process_time()
    data = ManifestDataset(manifest, dict)
    _ = data[len(data) // 2], data.ids[7], data.groups[3]
    said("data set")


if __name__ == "__main__":
    main()
