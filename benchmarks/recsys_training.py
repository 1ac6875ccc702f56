"""Training recommenders: BM3's step and memory, growth over items and interactions; beside an official checkout.

    python benchmarks/recsys_training.py steps [--peer mmrec=PATH]    BM3 at Amazon Baby's size, one step
    python benchmarks/recsys_training.py memory [--peer mmrec=PATH]   peak memory of five steps
    python benchmarks/recsys_training.py growth [--most 7]            over items and interactions, with exponents

Sizes, batch and widths are those of the published run (19,445 users, 7,050 items, 118,551 training interactions, batch
2,048, visual 4,096 and text 384 wide); edges are Amazon Baby's where $COUNTERPOINT_DATA has them, else drawn; features
are random numbers, on which no time depends. Times are CPU seconds of one thread (OMP_NUM_THREADS=1 is set); ratios
within one run are what counts. The loop's bookkeeping is left out on both sides.
"""

import argparse
import importlib.util
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

USERS, ITEMS, EDGES, BATCH = 19_445, 7_050, 118_551, 2_048
WIDTHS = {"image": 4_096, "text": 384}
FOLDERS: list = []  # of features, until the process ends
OFFICIAL = {"embedding_size": 64, "n_layers": 1, "reg_weight": 0.1, "cl_weight": 2.0, "dropout": 0.5}


def edges(users: int = USERS, items: int = ITEMS, count: int = EDGES):
    """[2, n] users and items: Amazon Baby's training split, or pairs drawn with popularity falling as 1 / rank."""
    import numpy as np

    file = Path(os.environ.get("COUNTERPOINT_DATA", ""), "recsys/amazon-baby/train.npy")
    if (users, items, count) == (USERS, ITEMS, EDGES) and file.is_file():
        return np.load(file, allow_pickle=False)
    rng = np.random.default_rng(0)
    popular = np.minimum((items ** rng.random(count)).astype(np.int64), items - 1)
    return np.stack([rng.integers(users, size=count), popular])


def data_of(users: int, items: int, pairs, widths: dict[str, int]):
    """Interactions, all of them for training, and features in files, as an import leaves them."""
    import numpy as np
    import pyarrow as pa

    from counterpoint.recsys.data.features import load_features
    from counterpoint.recsys.data.folder import InteractionData
    from counterpoint.recsys.data.ids import IdMap
    from counterpoint.recsys.data.log import Interactions

    kept = tempfile.TemporaryDirectory()
    FOLDERS.append(kept)
    names = [IdMap([f"{kind}{n}" for n in range(size)]) for kind, size in (("u", users), ("i", items))]
    log = Interactions(*names, pairs[0], pairs[1], split=np.zeros(pairs.shape[1])).ordered()
    folder, rng = Path(kept.name), np.random.default_rng(0)
    for name, width in widths.items():
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (items, width))
        for start in range(0, items, BATCH):
            file[start : start + BATCH] = rng.random((len(file[start : start + BATCH]), width), dtype=np.float32)
            file.flush()
            file.base.madvise(mmap.MADV_DONTNEED)
        np.save(folder / f"{name}.mask.npy", np.ones(items, bool))
    readers = load_features(folder, {name: f"{name}.npy" for name in widths}, (), items)
    tables = [pa.table({"id": ids.names}) for ids in names]
    return InteractionData(log, *tables, readers, "random")


def our_step(data, **changes):
    """One optimiser step of BM3 on random pairs."""
    import torch

    from counterpoint.common.trainers import create_system, override
    from counterpoint.recsys.bm3 import BM3
    from counterpoint.recsys.contrast_configs import BM3Config

    system = create_system(BM3, override(BM3Config(), {"data.standardize": False, **changes}), data).train()
    system.initialize()
    system.begin_stage(system.stage, 1)
    (optimizer,) = system.configure_optimizers()
    train = system.datasets().train

    def step(seed):
        torch.manual_seed(seed)
        batch = train.batch(torch.randint(len(train), (BATCH,)).tolist(), range(BATCH))
        system.network.features.keep_gradients()
        system.total(system.reduced(system.losses(batch, system.embed(batch)), batch)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_step(path: str, pairs):
    """One step of MMRec's BM3, with what current scipy and numpy no longer have put back."""
    import numpy as np
    import scipy.sparse as sp
    import torch

    file = Path(path, "src/models/bm3.py")
    if not file.is_file():
        raise SystemExit(f"--peer: {path} has no src/models/bm3.py; give the root of the official checkout")
    sys.path.insert(0, str(Path(path, "src")))
    np.float = float  # noqa: NPY001 - what the official code asks for
    sp.dok_matrix._update = lambda self, entries: self._dict.update(entries)
    GeneralRecommender = importlib.import_module("common.abstract_recommender").GeneralRecommender

    class Data:
        dataset = types.SimpleNamespace(get_user_num=lambda: USERS, get_item_num=lambda: ITEMS)

        def inter_matrix(self, form):
            return sp.coo_matrix((np.ones(pairs.shape[1]), tuple(pairs)), shape=(USERS, ITEMS))

    begin = GeneralRecommender.__init__

    def with_features(self, config, data):
        begin(self, config, data)
        self.v_feat, self.t_feat = (torch.rand(ITEMS, WIDTHS[name]) for name in ("image", "text"))

    GeneralRecommender.__init__ = with_features
    spec = importlib.util.spec_from_file_location("peer_bm3", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = {"USER_ID_FIELD": "u", "ITEM_ID_FIELD": "i", "NEG_PREFIX": "n", "train_batch_size": BATCH}
    flags = {"device": "cpu", "end2end": True, "is_multimodal_model": False}
    model = module.BM3({**names, **flags, **OFFICIAL}, Data())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.0)
    users, items = (torch.from_numpy(side.astype(np.int64)) for side in pairs)

    def step(seed):
        torch.manual_seed(seed)
        chosen = torch.randint(pairs.shape[1], (BATCH,))
        optimizer.zero_grad()
        model.calculate_loss((users[chosen], items[chosen])).backward()
        optimizer.step()

    return step


def runs_of(names: list[str], peer: str | None) -> dict:
    """The steps to compare, by name."""
    pairs = edges()
    made = {}
    for name in names:
        if name == "official code":
            made[name] = peer_step(peer, pairs)
        else:
            made[name] = our_step(data_of(USERS, ITEMS, pairs, WIDTHS), train_features="trained" in name)
    return made


def arms(peer: str | None) -> list[str]:
    return ["features trained", "features fixed", *(["official code"] if peer else [])]


def steps(repeats: int, peer: str | None) -> None:
    """CPU seconds of one step of each, in turn, after a warm-up."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    runs = runs_of(arms(peer), peer)
    figures = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, step in runs.items():
            start = time.process_time()
            step(repeat)
            figures[name].append(time.process_time() - start)
    last = list(figures)[-1]
    print(f"BM3, one step, {USERS} users, {ITEMS} items, batch {BATCH}, {repeats} rounds")
    for name, values in figures.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(figures[last][1:], values[1:]))
        middle, values = len(ratios) // 2, sorted(values[1:])
        of = f"{last} / this: {ratios[middle]:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(f"  {name:<18} {values[middle] * 1e3:7.1f} ms   {of}", flush=True)


def memory(peer: str | None) -> None:
    """Peak resident memory of a fresh process that takes five steps, less that of one that imports torch alone."""
    print("BM3, five steps, peak memory of the process beyond what the imports take")
    for name in arms(peer):
        found = subprocess.run(
            [sys.executable, __file__, "--one", name, *(["--peer", f"mmrec={peer}"] if peer else [])],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        print(f"  {name:<18} {found.stdout.strip()} MB", flush=True)


def one(name: str, peer: str | None) -> None:
    """In a fresh process: five steps; the peak less what was resident when all was imported."""
    import torch

    import counterpoint.recsys.bm3  # noqa: F401 - resident before the first reading

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = runs_of([name], peer)[name]
    for seed in range(5):
        step(seed)
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}")


def ranked(users: int, items: int, pairs, dim: int = 64) -> float:
    """CPU seconds to rank all items for all users, training items left out, and to count Recall and the like at 20."""
    import numpy as np
    import torch

    from counterpoint.common.data import Links
    from counterpoint.recsys.evaluation.measures import accuracy, hits_of
    from counterpoint.recsys.evaluation.ranking import VectorScorer, top_items

    generator = torch.Generator().manual_seed(0)
    scorer = VectorScorer(*(torch.randn(n, dim, generator=generator) for n in (users, items)))
    exclude = Links(pairs[0].astype(np.int64), pairs[1].astype(np.int64), (users, items))
    truth = Links(np.arange(users), np.random.default_rng(1).integers(items, size=users), (users, items))
    start = time.process_time()
    lists = top_items(scorer, np.arange(users), exclude, 20)
    accuracy(hits_of(lists, truth), truth.counts, (5, 10, 20))
    return time.process_time() - start


def exponent(sizes: list[float], seconds: list[float]) -> float:
    """Slope of log seconds over log size."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(most: int) -> None:
    """A step of BM3 and a ranking of 1,000 users over 10^4 .. 10^6 items; a step over 10^5 .. 10^most interactions."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    taken: list[float] = []
    ranks: list[float] = []
    items = [10**4, 10**5, 10**6]
    for size in items:
        pairs = edges(50_000, size, 500_000)
        taken.append(_step_seconds(data_of(50_000, size, pairs, {"text": 16})))
        chosen = pairs[:, pairs[0] < 1000]
        ranks.append(ranked(1000, size, chosen))
        print(f"  {size:>9} items: step {taken[-1] * 1e3:8.1f} ms, 1000 users ranked in {ranks[-1]:6.2f} s", flush=True)
    print(f"  exponent over items: step {exponent(items, taken):.2f}, ranking {exponent(items, ranks):.2f}")
    counts = [10**n for n in range(5, most + 1)]
    taken = []
    for count in counts:
        taken.append(_step_seconds(data_of(50_000, 20_000, edges(50_000, 20_000, count), {"text": 16})))
        print(f"  {count:>9} interactions: step {taken[-1] * 1e3:8.1f} ms", flush=True)
    print(f"  exponent over interactions: step {exponent(counts, taken):.2f}")


def _step_seconds(data) -> float:
    step = our_step(data, train_features=False)
    step(0)
    figures = []
    for seed in range(5):
        start = time.process_time()
        step(seed)
        figures.append(time.process_time() - start)
    return sorted(figures)[2]


def main() -> None:
    """Choose and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["steps", "memory", "growth"], default="steps")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--most", type=int, default=7, help="growth: largest power of ten of interactions")
    parser.add_argument("--peer", metavar="mmrec=PATH", help="official checkout of MMRec")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    name, _, path = (options.peer or "").partition("=")
    if options.peer and name != "mmrec":
        raise SystemExit(f"--peer: {name}; known is mmrec=PATH")
    if options.one:
        one(options.one, path or None)
    elif options.what == "steps":
        steps(options.repeats, path or None)
    elif options.what == "memory":
        memory(path or None)
    else:
        growth(options.most)


if __name__ == "__main__":
    main()
