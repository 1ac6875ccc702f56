"""Time-series benchmarks: reading a day of ECG, and training steps, optionally beside an official checkout.

    python benchmarks/timeseries.py day                         read and window 24 h of 3-lead 250 Hz ECG (16 and 212)
    python benchmarks/timeseries.py steps [--repeats 5]         TS2Vec and COMET training steps at the papers' sizes
    python benchmarks/timeseries.py steps --peer ts2vec=PATH --peer comet=PATH
                                                                the same beside official checkouts, in turn

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


def side_by_side(runs: dict, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of one step of each, in turn, `repeats` times after a warm-up, so that all meet the same machine."""
    figures = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, step in runs.items():
            start = time.process_time()
            step(repeat)
            figures[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in figures.items()}


def table(title: str, figures: dict[str, list[float]]) -> None:
    """Medians, and the median of the ratios to the first one taken in the same round."""
    ours = next(iter(figures.values()))
    middle = len(ours) // 2
    print(title)
    for name, values in figures.items():
        ratios = sorted(v / o for v, o in zip(values, ours))
        spread = f"{ratios[middle]:.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(f"  {name:<34} {sorted(values)[middle]:.3f} s   {spread} of ours", flush=True)


def our_step(name: str, batch: int, length: int, channels: int, **changes):
    """One optimiser step of our system on random windows; the loop's bookkeeping is left out on both sides."""
    import numpy as np
    import torch

    from counterpoint.common.trainers import create_system, override
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
    system = create_system(cls, override(config, changes), windows).train()
    dataset = WindowDataset(windows)
    samples = [dataset[i] for i in range(batch)]
    optimizer = torch.optim.AdamW(system.encoder.parameters(), lr=1e-3)

    def step(seed):
        torch.manual_seed(seed)
        data = draw(system.draw_views(dataset.collate(samples)), seed, length)
        loss = system.total(system.losses(data, system.embed(data)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        system.average.update()

    return step


def crops(seed: int, length: int) -> tuple[int, int, int, int]:
    """TS2Vec's crop of one step, the same for both sides: far left, left, right, far right."""
    import numpy as np

    generator = np.random.default_rng(seed)
    overlap = generator.integers(2, length + 1)
    left = generator.integers(length - overlap + 1)
    right = left + overlap
    return tuple(map(int, (generator.integers(left + 1), left, right, generator.integers(right, length + 1))))


def draw(data: dict, seed: int, length: int) -> dict:
    """The batch with that crop in place of its own (COMET's has none)."""
    import torch

    if "far_left" not in data:
        return data
    names = ("far_left", "left", "right", "far_right")
    return {**data, **{k: torch.tensor(v) for k, v in zip(names, crops(seed, length))},
            "offset": torch.zeros_like(data["offset"])}  # fmt: skip


def official(path: str, package: str):
    """The modules `models.encoder` and `models.losses` of an official checkout, under a name of their own."""
    folder = Path(path) / "models"
    if not (folder / "encoder.py").is_file():
        raise SystemExit(f"--peer: {path} has no models/encoder.py; give the root of the official checkout")
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)
    return importlib.import_module(f"{package}.encoder"), importlib.import_module(f"{package}.losses")


def peer(name: str, path: str, batch: int, length: int, channels: int):
    """One step of an official checkout: its encoder, its losses, its averaged model, the order of its own loop."""
    import numpy as np
    import torch

    encoders, losses = official(path, f"peer_{name}")
    encoder = encoders.TSEncoder(input_dims=channels, output_dims=320)
    average = torch.optim.swa_utils.AveragedModel(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    x = torch.randn(batch, length, channels)
    patient, trial = torch.arange(batch) // 8 * 1.0, torch.arange(batch) // 4 * 1.0

    def ts2vec(seed):
        far_left, left, right, far_right = crops(seed, length)
        first = encoder(x[:, far_left:right].clone())[:, left - right :]
        second = encoder(x[:, left:far_right].clone())[:, : right - left]
        return losses.hierarchical_contrastive_loss(first, second, temporal_unit=0)

    def comet(seed):
        terms = []
        for mask, loss, ids, pooled in (
            ("all_true", losses.patient_contrastive_loss, patient, False),
            ("all_true", losses.trial_contrastive_loss, trial, False),
            ("continuous", losses.sample_contrastive_loss, None, True),
            ("continuous", losses.observation_contrastive_loss, None, True),
        ):
            views = [encoder(x, mask=mask) for _ in range(2)]
            terms.append(losses.contrastive_loss(*views, loss, id=ids, hierarchical=pooled, factor=0.25))
        return sum(terms)

    objective = {"ts2vec": ts2vec, "comet": comet}[name]

    def step(seed):
        torch.manual_seed(seed)
        np.random.seed(seed)
        optimizer.zero_grad()
        objective(seed).backward()
        optimizer.step()
        average.update_parameters(encoder)

    return step


def steps(repeats: int, batch: int, peers: list[str]) -> None:
    """CPU seconds per training step at equal sizes, beside the official code where a checkout is given."""
    import torch

    given = dict(peer.partition("=")[::2] for peer in peers)
    if set(given) - {"ts2vec", "comet"}:
        raise SystemExit(f"--peer: {', '.join(given)}; known are ts2vec=PATH and comet=PATH")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    for size in ({"batch": 8, "length": 150, "channels": 1}, {"batch": 32, "length": 256, "channels": 12}):
        runs = {"ours": our_step("ts2vec", **size)}
        if "ts2vec" in given:
            runs["official code"] = peer("ts2vec", given["ts2vec"], **size)
        table(f"TS2Vec {size}, {repeats} rounds", side_by_side(runs, repeats))
    size = {"batch": batch, "length": 256, "channels": 16}
    runs = {"ours": our_step("comet", **size), "ours, views=shared": our_step("comet", views="shared", **size)}
    if "comet" in given:
        runs["official code"] = peer("comet", given["comet"], **size)
    table(f"COMET {size}, {repeats} rounds", side_by_side(runs, repeats))


def main() -> None:
    """Choose and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["day", "steps"], default="day")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="windows in a COMET step (the paper's is 256)")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PATH", help="official checkout: ts2vec=PATH, comet=PATH"
    )
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
