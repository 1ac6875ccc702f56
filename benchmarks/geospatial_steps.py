"""A pretraining step of CROMA beside the official pretraining file: forward and backward at base size, one process.

    git clone https://github.com/antofuller/CROMA
    OMP_NUM_THREADS=1 python benchmarks/geospatial_steps.py --official CROMA/pretrain_croma.py --batch 16

Both networks have the same weights in number, 14 bands of 120 x 120 random pixels (synthetic) and 75 % of each sensor's
patches hidden. Steps are taken in turn; seconds are the process's CPU seconds, the least of some. Memory is what
autograd saves for the backward pass, each storage once, parameters and inputs not counted. The official file needs
`einops` and a type that NumPy no longer has (`np.float`, replaced here); its gathering over processes is left out.
"""

import argparse
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.trainers import override
from counterpoint.geospatial.bands import S1_2, S2_12
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.data.form import BandForm

SIDE, PATCH, RATIO = 120, 8, 0.75
Step = Callable[[], Tensor]


def ours(images: Tensor) -> tuple[torch.nn.Module, Step]:
    """The system at its defaults, and what gives its loss."""
    bands = {"s1": S1_2, "s2": S2_12}
    mean, std = ({s: np.full(len(n), v) for s, n in bands.items()} for v in (0.5, 0.3))
    config = override(Croma.Config(), {"data.size": SIDE})
    system = Croma(config, BandForm(bands, mean, std, 10.0, "sigma0", "clip").assets())
    count, patches = len(images), (SIDE // PATCH) ** 2
    names = [str(i) for i in range(count)]
    whole = torch.ones(count, SIDE, SIDE, dtype=torch.bool)
    batch = {"index": torch.arange(count), "id": names, "group": names, "s1": images[:, 12:], "s2": images[:, :12],
             "s1_valid": whole, "s2_valid": whole}  # fmt: skip

    def step() -> Tensor:
        noise = {f"{s}_noise": torch.rand(count, patches) for s in ("s1", "s2")}
        drawn = batch | noise
        return sum(term.mean() for term in system.losses(drawn, system.embed(drawn)).values())

    return system, step


def official(images: Tensor, file: Path) -> tuple[torch.nn.Module, Step]:
    """The official model at its defaults, and what gives its loss."""
    module = types.ModuleType("official")
    text = file.read_text(encoding="utf-8").replace("dtype=np.float)", "dtype=np.float64)")
    exec(compile(text, str(file), "exec"), module.__dict__)
    module.gather_features = lambda features, world_size: features
    model, patches = module.CROMA(), (SIDE // PATCH) ** 2

    def step() -> Tensor:
        masks = [module.get_mask(len(images), patches, "cpu", RATIO) for _ in range(2)]
        return sum(model(images, *masks, 0, 1))

    return model, step


def saved_megabytes(model: torch.nn.Module, images: Tensor, step: Step) -> float:
    """What a forward pass keeps for the backward one."""
    left_out = {p.untyped_storage().data_ptr() for p in model.parameters()} | {images.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()  # held, so that no storage is used twice
    found = sum(kept.values()) / 2**20
    del loss
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="pretrain_croma.py of antofuller/CROMA")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="also the share of matrix products in our step")
    given = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(given.batch, len(S1_2) + len(S2_12), SIDE, SIDE)
    made = {"Counterpoint": ours(images), "official": official(images, given.official)}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    saved = {name: saved_megabytes(model, images, step) for name, (model, step) in made.items()}
    for repeat in range(given.repeats + 1):
        for name, (model, step) in made.items():
            model.zero_grad()
            start = time.process_time()
            step().backward()
            if repeat:
                seconds[name].append(time.process_time() - start)
    print("| | weights | seconds a step | MiB saved for the backward pass |\n|---|---|---|---|")
    for name, (model, _) in made.items():
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(f"| {name} | {count} | {min(seconds[name]):.2f} | {saved[name]:.0f} |")
    faster = min(seconds["official"]) / min(seconds["Counterpoint"])
    print(f"| ratio | | {faster:.2f} | {saved['official'] / saved['Counterpoint']:.2f} |")
    if given.profile:
        with torch.profiler.profile() as found:
            made["Counterpoint"][1]().backward()
        events = found.key_averages()
        whole = sum(e.self_cpu_time_total for e in events)
        products = sum(e.self_cpu_time_total for e in events if e.key in ("aten::mm", "aten::addmm", "aten::bmm"))
        print(f"\nmatrix products: {products / whole:.0%} of our step")


if __name__ == "__main__":
    main()
