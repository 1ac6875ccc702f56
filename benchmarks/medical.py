"""Volumes with reports: reading beside MONAI's cache, training steps of every system, surface distances.

    python benchmarks/medical.py read [--volumes 3]     DICOM and NIfTI to a training sample, cold and cached
    python benchmarks/medical.py steps                  one optimiser step and peak memory of every system
    python benchmarks/medical.py surface                Dice and surface distances of a label map
    python benchmarks/medical.py                        all three

Volumes are synthetic. Times are CPU seconds of one thread (OMP_NUM_THREADS=1 is set), taken in turn in one process;
ratios within one run are what counts.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

SIDE, SPACING = 96, 3.5
SYSTEMS = {
    "clip-ct": ("clip_ct:ClipCT", 2, {}),
    "velvet-med": ("velvet_med:VelvetMed", 2, {}),
    "gemini": ("gemini:Gemini", 2, {}),
    "sepclr": ("ct_sepclr:CTSepCLR", 4, {}),
    "supremix": ("ct_supremix:CTSupReMix", 4, {"label": "noise"}),
}


def scan(seed: int):
    """A phantom of 128 slices of 512 x 512 pixels, with noise at every pixel, so that files compress as scans do."""
    import numpy as np

    from counterpoint.medical.configs import PhantomConfig
    from counterpoint.medical.phantom import make_case

    case = make_case(seed, PhantomConfig(size=128, spacing=2.7))
    fine = np.repeat(np.repeat(case.volume, 4, axis=0), 4, axis=1)
    noise = np.random.default_rng(seed).normal(0, 10, fine.shape).astype(np.float32)
    affine = case.affine @ np.diag([0.25, 0.25, 1.0, 1.0])
    return np.clip(fine + np.rint(noise), -1024, 3071).astype(np.int16), affine


def timed(work):
    """(CPU seconds, what the work returned)."""
    start = time.process_time()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        made = work()
    return time.process_time() - start, made


def ours(folder: Path, recipe) -> dict:
    """name -> work on a file or DICOM folder: what an import does in a worker, and what training reads from it."""
    import numpy as np
    import torch

    from counterpoint.common.data.places import Folder
    from counterpoint.medical.clip_ct import jitter
    from counterpoint.medical.data import _keep, _prepared, load_prepared
    from counterpoint.medical.hu import require_hu
    from counterpoint.medical.readers.dicom import dicom_header, lay_out, read_series, series_of
    from counterpoint.medical.volume import to_recipe, write_nifti

    def sample(path: Path):
        data, _ = load_prepared(path)
        return jitter(torch.from_numpy(data.astype(np.float32))[None], 2, recipe.outside)

    def prepared(file: Path):
        row = {"id": file.name, "volume": file.name, "modality": "ct", "hu": "header", "reports": ""}
        return _prepared(row, Folder(file.parent), recipe, str(folder / "ours"))[0]

    def series(source: Path):
        groups, _ = series_of([dicom_header(file) for file in sorted(source.glob("*.dcm"))])
        volume = read_series(lay_out(groups[0])[0])
        require_hu(volume.data, "header", {})
        return volume

    def direct(source: Path):
        kept = folder / f"{source.name}.npz"
        _keep(kept, to_recipe(series(source), recipe))
        return sample(kept)

    def imported(source: Path):
        volume = series(source)
        return sample(prepared(write_nifti(folder / f"imported-{source.name}.nii.gz", volume.data, volume.affine)))

    known: dict[Path, Path] = {}

    def cold(file: Path):
        known[file] = prepared(file)
        return sample(known[file])

    return {
        "nifti": cold, "cached": lambda file: sample(known[file]), "dicom": direct, "dicom, imported": imported,
    }  # fmt: skip


def monai_dataset(files: list[Path], folder: Path, recipe, lowpass: bool):
    """MONAI's PersistentDataset with the transforms of the exported bundle (the same low-pass, grid and clipping), or
    with MONAI's Spacingd and no low-pass; then the same move of the volume, by MONAI's pad and random crop."""
    from monai.bundle.config_parser import ConfigParser
    from monai.data.dataset import PersistentDataset
    from monai.transforms import Compose, RandSpatialCropd, ResizeWithPadOrCropd, Spacingd, SpatialPadd

    from counterpoint.medical.bundle import inference

    parser = ConfigParser(inference(recipe, False))
    steps = list(parser.get_parsed_content("preprocessing").transforms)
    if not lowpass:
        grid = Spacingd(keys="image", pixdim=recipe.spacing, mode="bilinear", padding_mode="border")
        fit = ResizeWithPadOrCropd(keys="image", spatial_size=recipe.size, mode="constant", value=recipe.outside)
        steps[3:4] = [grid, fit]
    side = [n + 4 for n in recipe.size]
    move = [
        SpatialPadd(keys="image", spatial_size=side, mode="constant", value=recipe.outside),
        RandSpatialCropd(keys="image", roi_size=recipe.size, random_size=False),
    ]
    return PersistentDataset([{"image": str(f)} for f in files], Compose([*steps, *move]), cache_dir=folder)


def read(volumes: int) -> None:
    """Cold and cached, beside MONAI, every volume in turn by every way."""
    import torch

    from counterpoint.medical.configs import RecipeConfig
    from counterpoint.medical.phantom_dicom import write_dicom_slices
    from counterpoint.medical.volume import write_nifti

    torch.set_num_threads(1)
    recipe = RecipeConfig(spacing=(SPACING,) * 3, size=(SIDE,) * 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {"nifti": [], "dicom": []}
        for i in range(volumes):
            data, affine = scan(i)
            sources["nifti"].append(write_nifti(folder / f"scan{i}.nii.gz", data, affine))
            write_dicom_slices(folder / f"dicom{i}", data, affine, f"P{i}")
            sources["dicom"].append(folder / f"dicom{i}")
        mine, times = ours(folder, recipe), {}
        ways = {
            ("nifti", "cold"): ["nifti"], ("nifti", "cached"): ["cached"],
            ("dicom", "cold"): ["dicom", "dicom, imported"], ("dicom", "cached"): [],
        }  # fmt: skip
        for kind, files in sources.items():
            peers = {low: monai_dataset(files, folder / f"monai-{kind}-{low}", recipe, low) for low in (True, False)}
            for state in ("cold", "cached"):
                for i, file in enumerate(files):
                    for way in ways[kind, state]:
                        spent, _ = timed(lambda work=mine[way], file=file: work(file))
                        times.setdefault((kind, state, way), []).append(spent)
                    for low, peer in peers.items():
                        spent, _ = timed(lambda peer=peer, i=i: peer[i])
                        times.setdefault((kind, state, f"MONAI, low-pass {low}"), []).append(spent)
    for (kind, state, way), spent in times.items():
        print(f"{kind:6} {state:7} {way:22} {statistics.median(spent):.3f} CPU s a volume "
              f"({min(spent):.3f} to {max(spent):.3f})", flush=True)  # fmt: skip


def peak_memory() -> float:
    """GiB of this process; what `getrusage` says starts at the peak of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def step_of(name: str, repeats: int = 3) -> None:
    """In a fresh process: the median optimiser step of a system on phantoms, and the process's peak memory."""
    import torch

    from counterpoint.common.lazy import resolve
    from counterpoint.common.trainers import create_system, override

    torch.set_num_threads(1)
    torch.manual_seed(0)
    where, batch_size, changes = SYSTEMS[name]
    cls = resolve(f"counterpoint.medical.{where}")
    recipe = {"spacing": [SPACING] * 3, "size": [SIDE] * 3}
    data = {"data.phantom.size": SIDE, "data.phantom.spacing": SPACING, "data.volumes": 8, "data.val_volumes": 2,
            "data.test_volumes": 2, "data.workers": 1, "data.recipe": recipe}  # fmt: skip
    small = {**cls.presets["small"]}
    config = override(override(cls.Config(), small), {**data, **changes, "train.batch_size": batch_size})
    system = create_system(cls, config).train()
    samples = system.datasets().train
    batch = samples.collate([samples[i] for i in range(batch_size)])
    optimiser = torch.optim.AdamW(system.parameters(), lr=1e-4)
    before, spent = peak_memory(), []
    for _ in range(repeats + 1):
        start = time.process_time()
        loss = system.total(system.losses(batch, system.embed(batch)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        spent.append(time.process_time() - start)
    peak = peak_memory()
    parameters = sum(p.numel() for p in system.parameters()) / 1e6
    print(f"{name:11} batch {batch_size}, {parameters:.1f} M parameters: "
          f"{statistics.median(spent[1:]):.2f} CPU s a step, peak {peak:.2f} GiB ({before:.2f} before)",
          flush=True)  # fmt: skip


def steps() -> None:
    """Every system in a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as cache:
        for name in SYSTEMS:
            subprocess.run([sys.executable, __file__, "--step", name], check=True,
                           env={**os.environ, "COUNTERPOINT_CACHE": cache}, stderr=subprocess.DEVNULL)  # fmt: skip


def surface() -> None:
    """Figures of one label map against the same moved by a voxel, with distances and without."""
    import numpy as np

    from counterpoint.medical.configs import PhantomConfig
    from counterpoint.medical.phantom import make_case
    from counterpoint.medical.segmentation import coverage

    labels = make_case(0, PhantomConfig(size=160, spacing=2.2)).labels
    largest = [k for k, _ in sorted(zip(*np.unique(labels, return_counts=True)), key=lambda p: -p[1]) if k][:3]
    coverage(labels[:8, :8, :8], labels[:8, :8, :8], (2.2,) * 3, [1])  # imports MONAI
    for distances in (False, True):
        spent, _ = timed(lambda d=distances: coverage(labels, np.roll(labels, 1, 0), (2.2,) * 3, largest, d))
        print(f"160^3 voxels, {len(largest)} labels, distances {distances}: {spent:.2f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=("read", "steps", "surface", []))
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step_of(options.step)
        return
    for what in options.what or ("read", "steps", "surface"):
        {"read": lambda: read(options.volumes), "steps": steps, "surface": surface}[what]()


if __name__ == "__main__":
    main()
