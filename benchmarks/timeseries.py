"""Time-series benchmarks: reading a day of ECG, and training steps, optionally beside an official checkout.

    python benchmarks/timeseries.py day                         read and window 24 h of 3-lead 250 Hz ECG (16 and 212)
    python benchmarks/timeseries.py steps [--repeats 5]         TS2Vec and COMET training steps at the papers' sizes
    python benchmarks/timeseries.py steps --peer ts2vec=PATH    the same beside an official TS2Vec checkout (figures)

Times are CPU seconds of one thread (OMP_NUM_THREADS=1 is set); ratios within one run are what counts.
"""

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

HOURS, LEADS, RATE = 24, 3, 250


def write_day(folder: Path, fmt: str) -> Path:
    """A day of noise-like ECG samples as a WFDB record, without the help of the reader under test."""
    import numpy as np

    samples = HOURS * 3600 * RATE
    generator = np.random.default_rng(0)
    file = folder / f"day{fmt}.dat"
    with file.open("wb") as out:
        for _ in range(HOURS):
            x = generator.integers(-2000, 2000, samples // HOURS * LEADS).astype("<i2")
            if fmt == "16":
                out.write(x.tobytes())
            else:
                pairs = x.reshape(-1, 2).astype(np.uint16) & 0xFFF
                packed = np.empty((len(pairs), 3), np.uint8)
                packed[:, 0] = pairs[:, 0] & 0xFF
                packed[:, 1] = (pairs[:, 0] >> 8) | ((pairs[:, 1] >> 8) << 4)
                packed[:, 2] = pairs[:, 1] & 0xFF
                out.write(packed.tobytes())
    lines = [f"day{fmt} {LEADS} {RATE} {samples}"]
    lines += [f"day{fmt}.dat {fmt} 200 12 0 0 0 0 {name}" for name in ("I", "II", "V1")]
    header = folder / f"day{fmt}.hea"
    header.write_text("\n".join(lines) + "\n")
    return header


def read_day(header: str) -> None:
    """In a fresh process: read, window, touch every window; print times and peak memory."""
    from counterpoint.timeseries.readers.wfdb import read_wfdb
    from counterpoint.timeseries.windows import WindowSet

    start, cpu = time.perf_counter(), time.process_time()
    record = read_wfdb(header)
    x, _ = record.array()
    read = time.perf_counter() - start
    windows = WindowSet.build([x], 2 * RATE, RATE, [{"id": "day"}], RATE, record.names)
    total, total_cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  read {read:.2f} s, read and window {total:.2f} s (CPU {total_cpu:.2f} s), "
          f"{len(windows)} windows, peak {peak:.0f} MB of the whole process")  # fmt: skip


def day() -> None:
    """24 hours of three leads; target: 5 s and 500 MB."""
    with tempfile.TemporaryDirectory() as folder:
        for fmt in ("16", "212"):
            header = write_day(Path(folder), fmt)
            print(f"format {fmt}: {HOURS} h, {LEADS} leads, {RATE} Hz", flush=True)
            subprocess.run([sys.executable, __file__, "--read", str(header)], check=True)


def timed(step, repeats: int) -> float:
    """Median CPU seconds of a step after one warm-up."""
    step()
    figures = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        figures.append(time.process_time() - start)
    return sorted(figures)[len(figures) // 2]


def our_step(name: str, batch: int, length: int, channels: int, **changes):
    """One optimiser step of our system on random windows; the loop's bookkeeping is left out on both sides."""
    import numpy as np
    import torch

    from counterpoint.common.trainers import override
    from counterpoint.timeseries.base import build
    from counterpoint.timeseries.comet import Comet
    from counterpoint.timeseries.configs import CometConfig, TS2VecConfig
    from counterpoint.timeseries.manifest import WindowDataset
    from counterpoint.timeseries.ts2vec import TS2Vec
    from counterpoint.timeseries.windows import WindowSet

    generator = np.random.default_rng(0)
    signals = [generator.normal(size=(length, channels)).astype(np.float32) for _ in range(batch)]
    rows = [{"id": str(i), "group": str(i // 8), "trial": str(i // 4), "split": "train"} for i in range(batch)]
    windows = WindowSet.build(signals, length, length, rows, 1.0)
    cls, config = {"ts2vec": (TS2Vec, TS2VecConfig()), "comet": (Comet, CometConfig())}[name]
    system = build(cls, override(config, changes), windows).train()
    dataset = WindowDataset(windows)
    samples = [dataset[i] for i in range(batch)]
    optimizer = torch.optim.AdamW(system.encoder.parameters(), lr=1e-3)

    def step():
        data = system.collate(samples)
        loss = system.total(system.losses(data, system.embed(data)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        system.average.update()

    return step


def eight_passes(batch: int, length: int, channels: int):
    """COMET as the official loop computes it: eight encoder passes, logits as full matrices."""
    import torch
    import torch.nn.functional as F

    from counterpoint.timeseries.encoders import TS2VecEncoder, timestamp_mask

    torch.manual_seed(0)
    encoder = TS2VecEncoder(channels)
    average = [p.detach().clone() for p in encoder.parameters()]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    x = torch.randn(batch, length, channels)
    ids = {"patient": torch.arange(batch) // 8, "trial": torch.arange(batch) // 4}

    def dense_pair(z):
        scores = z @ z.transpose(1, 2)
        rows = scores.shape[-1]
        scores = scores.masked_fill(torch.eye(rows, dtype=torch.bool), -torch.inf)
        twin = (torch.arange(rows) + rows // 2) % rows
        return -F.log_softmax(scores, -1)[:, torch.arange(rows), twin].mean()

    def pooled(a, b, axis):
        total, scales = 0.0, 0
        while a.shape[1] > 1:
            total = total + dense_pair(torch.cat([a, b], 0).transpose(0, 1) if axis == 0 else torch.cat([a, b], 1))
            a, b = (F.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (a, b))
            scales += 1
        return total / scales

    def by_id(a, b, codes):
        a, b = (F.normalize(F.normalize(z, dim=1).flatten(1), dim=1) for z in (a, b))
        s = a @ b.T / 0.1
        same = codes[:, None] == codes[None]
        row, column = s - s.logsumexp(1, keepdim=True), s - s.logsumexp(0, keepdim=True)
        return -(row[same.triu(1)].mean() + column[same.tril(-1)].mean()) / 2

    def step():
        loss = 0.0
        for level in ("patient", "trial", "sample", "observation"):
            kind = "all_true" if level in ids else "continuous"
            a, b = (encoder(x, timestamp_mask(kind, batch, length)) for _ in range(2))
            loss = loss + 0.25 * (by_id(a, b, ids[level]) if level in ids else pooled(a, b, int(level != "sample")))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for kept, p in zip(average, encoder.parameters()):
            kept.lerp_(p.detach(), 0.1)

    return step


def peer_ts2vec(path: Path, batch: int, length: int, channels: int):
    """One step of an official TS2Vec checkout (its TSEncoder and hierarchical loss, its own cropping)."""
    import numpy as np
    import torch

    sys.path.insert(0, str(path))
    spec = importlib.util.find_spec("models.encoder")
    if spec is None:
        raise SystemExit(f"--peer: {path} has no models/encoder.py; give the root of a TS2Vec checkout")
    from models.encoder import TSEncoder
    from models.losses import hierarchical_contrastive_loss

    encoder = TSEncoder(input_dims=channels, output_dims=320)
    average = torch.optim.swa_utils.AveragedModel(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    x = torch.randn(batch, length, channels)

    def step():
        crop = np.random.randint(2, length + 1)
        left = np.random.randint(length - crop + 1)
        right = left + crop
        far_left, far_right = np.random.randint(left + 1), np.random.randint(right, length + 1)
        first = encoder(x[:, far_left:right])[:, -crop:]
        second = encoder(x[:, left:far_right])[:, :crop]
        loss = hierarchical_contrastive_loss(first, second, temporal_unit=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(encoder)

    return step


def steps(repeats: int, batch: int, peers: list[str]) -> None:
    """Median CPU seconds per training step at equal sizes."""
    import numpy as np
    import torch

    given = dict(peer.split("=", 1) for peer in peers)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    size = {"batch": 8, "length": 150, "channels": 1}
    torch.manual_seed(0)
    print(f"TS2Vec {size}: ours {timed(our_step('ts2vec', **size), repeats):.3f} s", flush=True)
    if "ts2vec" in given:
        np.random.seed(0)
        print(f"TS2Vec {size}: peer {timed(peer_ts2vec(Path(given['ts2vec']), **size), repeats):.3f} s", flush=True)
    size = {"batch": batch, "length": 256, "channels": 16}
    plain = timed(eight_passes(**size), repeats)
    separate = timed(our_step("comet", **size), repeats)
    shared = timed(our_step("comet", **size, views="shared"), repeats)
    print(f"COMET {size}: eight passes with full matrices {plain:.3f} s; ours {separate:.3f} s "
          f"({plain / separate:.2f}x, same result); ours with shared views {shared:.3f} s ({plain / shared:.2f}x, "
          "same expected gradient)")  # fmt: skip


def main() -> None:
    """Choose and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["day", "steps"], default="day")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="windows in a COMET step (the paper's is 256)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="official checkout (ts2vec)")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_day(options.read)
    elif options.what == "day":
        day()
    else:
        steps(options.repeats, options.batch, options.peer)


if __name__ == "__main__":
    main()
