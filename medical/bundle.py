"""`export --format monai-bundle`: a volume encoder and its preprocessing as a MONAI bundle, to run without this suite.

    configs/inference.json   reading, preprocessing, network, what is written; `python -m monai.bundle run`
    configs/metadata.json    versions, inputs, outputs, the whole recipe of the run
    models/model.ts          the encoder as TorchScript; loading it runs no pickle
    docs/README.md           how to run it, and what it does not check

The configuration repeats `medical/volume.py: to_recipe` step for step in MONAI's transforms and SciPy's filters, since
MONAI's `Spacing` has no such low-pass. The bundle is run on a volume before it is handed over, and its embedding
compared with the source's. It expects Hounsfield units: whether values are, only the suite's `embed-scan` checks.

Layout: MONAI Bundle specification; MONAI 1.6.1's `ConfigParser` and `monai.bundle run` were used.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from counterpoint.common.data.samples import plain
from counterpoint.common.errors import InputError
from counterpoint.common.output import write_json
from counterpoint.common.trainers.exporting import ExportReport, example_batch
from counterpoint.common.trainers.run_folder import system_name
from counterpoint.common.trainers.tracing import trace
from counterpoint.medical.configs import RecipeConfig
from counterpoint.medical.volume import Volume, write_nifti

VOLUMES = ("ct", "volume")
"""Modalities that are volumes; one of them names what a bundle embeds."""
SCALED = ("volume",)
"""Those whose values are scaled to 0..1 by the volume's own range (`gemini`)."""
ONCE = "slope and intercept applied once"


def write_bundle(
    system: Any, path: Path, *, modality: str | None = None, batch: Any = None, tolerance: float = 1e-4
) -> ExportReport:
    """The format `monai-bundle`: a folder, compared with the source on a made-up volume of another grid.

    Raises:
        InputError: the system embeds no volumes, cannot be traced, MONAI is missing, or the numbers differ.
    """
    name, output = _volume_of(system, modality)
    batch = example_batch(system) if batch is None else batch
    example = batch[name].float()
    if len(example) < 2:
        example = torch.cat([example, example])
    recipe = system.config.data.recipe
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: is there already; name a folder that is new or empty")
    for folder in ("configs", "models", "docs"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    try:
        network = _traced(system, name, output, {**batch, name: example})
        network.save(str(path / "models" / "model.ts"))
        width = int(network(example[:1]).shape[1])
        write_json(inference(recipe, name in SCALED), path / "configs" / "inference.json")
        write_json(bundle_metadata(system, name, output, width), path / "configs" / "metadata.json")
        (path / "docs" / "README.md").write_text(_readme(system, name), encoding="utf-8")
        worst = _largest_difference(system, path, name, output, recipe)
        if not worst <= tolerance:
            raise InputError(f"{path}: the bundle differs from the source by {worst:.2g} (tolerance {tolerance:g})")
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    size = " x ".join(map(str, recipe.size))
    said = (f"run it in {path}: python -m monai.bundle run --config_file configs/inference.json --scan scan.nii.gz",)
    return ExportReport(path, (name,), (f"{output}_embedding",), worst, (1,), {name: f"[1, {size}]"}, (), said)


def _volume_of(system: Any, modality: str | None) -> tuple[str, str]:
    """(the input that is a volume, the embedding that is made of it)."""
    inputs = [name for name in VOLUMES if name in system.inputs]
    if not inputs:
        raise InputError(f"{type(system).__name__} embeds no volumes; --format monai-bundle is for encoders of volumes")
    mine = inputs[0]
    known = list(system.modalities) if mine not in system.modalities else [mine]
    if modality is not None and modality not in known:
        raise InputError(f"--modality {modality} is no embedding of a volume; there is {', '.join(known)}")
    if modality is None and len(known) > 1:
        raise InputError(f"a bundle holds one embedding; name it: --modality {' or '.join(known)}")
    return mine, modality or known[0]


def _traced(system: Any, name: str, output: str, batch: Mapping[str, Any]) -> Any:
    """The encoder of [batch, x, y, z] values as TorchScript, from the same program as the suite's other exports."""
    try:
        traced, _ = trace(system, {name: batch[name]}, (name,), output, {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated in PyTorch, and what MONAI's bundles hold
            return torch.jit.trace(_First(traced.program.module()), batch[name][:1], check_trace=False)
    except Exception as error:  # the tracers raise dozens of types; the user needs the sentence
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{type(system).__name__} cannot be exported ({said})") from error


class _First(nn.Module):
    """The only output of a program."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Tensor:
        (found,) = self.program(x)
        return found


def inference(recipe: RecipeConfig, scaled: bool) -> dict[str, Any]:
    """The bundle's configuration: `to_recipe` in MONAI's words, then the network.

    Expressions of MONAI's configuration start with `$`; `@name` is another entry.

    >>> inference(RecipeConfig(), False)["size"]
    [224, 224, 160]
    """
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image", "image_only": True, "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {
            "_target_": "ScaleIntensityRanged", "keys": "image", "a_min": recipe.low, "a_max": recipe.high,
            "b_min": recipe.low, "b_max": recipe.high, "clip": True,
        },
        {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: @to_grid(x, @lowpass(x))"},
    ]  # fmt: skip
    if scaled:
        steps.append({"_target_": "ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 1.0})
    steps.append({"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False})
    factor = "np.array(@spacing) / x.pixdim.numpy()"
    return {
        "imports": ["$import numpy as np", "$import torch", "$from scipy import ndimage", "$import glob", "$import os"],
        "bundle_root": ".",
        "scan": "",
        "dataset_dir": ".",
        "output_dir": ".",
        "device": "cpu",
        "spacing": list(recipe.spacing),
        "size": list(recipe.size),
        "outside": recipe.outside,
        "scans": "$[@scan] if @scan else sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "sigma": f"$lambda x: np.maximum(({factor} - 1) / 2, 0)",
        "lowpass": "$lambda x: ndimage.gaussian_filter(x[0].numpy(), @sigma(x), mode='nearest') "
        "if (@sigma(x) > 0.05).any() else x[0].numpy()",
        "first": f"$lambda x: (np.array(x.shape[1:]) - 1) / 2 - {factor} * (np.array(@size) - 1) / 2",
        "to_grid": "$lambda x, values: torch.from_numpy(ndimage.affine_transform("
        f"np.asarray(values, dtype=np.float32), {factor}, offset=@first(x), output_shape=tuple(@size), order=1, "
        "mode='constant', cval=@outside))[None]",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "network": "$torch.jit.load(os.path.join(@bundle_root, 'models', 'model.ts'), map_location=@device).eval()",
        "embed": "$lambda scan: "
        "@network(@preprocessing({'image': scan})['image'].to(@device)).detach().cpu().numpy()[0]",
        "name": "$lambda scan: os.path.basename(os.path.normpath(scan)).split('.')[0] + '.npy'",
        "save": "$lambda scan: np.save(os.path.join(@output_dir, @name(scan)), @embed(scan))",
        "run": ["$os.makedirs(@output_dir, exist_ok=True)", "$list(map(@save, @scans))"],
    }


def bundle_metadata(system: Any, name: str, output: str, width: int) -> dict[str, Any]:
    """What MONAI's specification asks for, and the run's whole recipe."""
    import monai
    import nibabel
    import scipy

    recipe = system.config.data.recipe
    unit = "0..1 of the volume's own range" if name in SCALED else "HU"
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported"},
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": nibabel.__version__, "scipy": scipy.__version__},
        "name": f"{system_name(system)} encoder",
        "task": "embedding of volumes",
        "description": f"The {output} embedding of {type(system).__name__} for one volume, its preprocessing inside.",
        "authors": "",
        "copyright": "",
        "intended_use": "Research. No medical device; values are not checked to be Hounsfield units.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image", "format": unit, "num_channels": 1, "spatial_shape": list(recipe.size),
                    "dtype": "float32", "value_range": [0, 1] if name in SCALED else [recipe.low, recipe.high],
                    "is_patch_data": False, "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "tuples", "format": "embedding", "num_channels": width, "spatial_shape": [],
                    "dtype": "float32", "value_range": [], "is_patch_data": False, "channel_def": {},
                }
            },
        },
        "counterpoint": {
            "system": system_name(system), "modality": output,
            "preprocessing": json.loads(json.dumps(system.preprocessing(), default=plain)),
        },
    }  # fmt: skip


def _readme(system: Any, name: str) -> str:
    command = "    python -m monai.bundle run --config_file configs/inference.json"
    units = "" if name in SCALED else f"Values have to be Hounsfield units, {ONCE}; this is not checked here.\n"
    return (
        f"# {system_name(system)}: embeddings of volumes\n\n"
        f"{command} --scan scan.nii.gz --output_dir vectors\n"
        f"{command} --dataset_dir scans --output_dir vectors\n\n"
        "Each scan, a volume (NIfTI; a DICOM folder where MONAI's reader takes it), gives `NAME.npy`. The\n"
        "preprocessing of the training stands in `configs/inference.json`; it needs MONAI with fire, nibabel, SciPy,\n"
        "and not the suite that trained the encoder. Run it in this folder, or name it (`--bundle_root`).\n\n" + units
    )


def _largest_difference(system: Any, path: Path, name: str, output: str, recipe: RecipeConfig) -> float:
    """Between the bundle and the source, of a file in another order of axes, finer along one axis and larger."""
    from counterpoint.medical.gallery import query, volume_sample
    from counterpoint.medical.readers.nifti import read_file

    spacing = np.array(recipe.spacing) * (0.8, 1.0, 1.3)
    shape = tuple(int(n) for n in np.maximum(np.array(recipe.size) * np.array(recipe.spacing) / spacing * 0.9, 4))
    generator = np.random.default_rng(0)
    low, high = max(recipe.low, -1000.0), min(recipe.high, 1000.0)
    values = generator.integers(int(low), int(high), shape).astype(np.int16)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = 10.0, -20.0, 30.0
    with tempfile.TemporaryDirectory() as folder:
        file = write_nifti(Path(folder) / "volume.nii.gz", values, affine)
        if name in SCALED:
            sample = query(file, name, system)
        else:
            volume: Volume = read_file(file)
            sample = volume_sample(volume, system)
        mine = system.encode({name: sample[name][None].float()}, output)[output][0]
        theirs = run_bundle(path, file)
    return float((mine - torch.from_numpy(theirs)).abs().max())


def run_bundle(path: Path, scan: Path) -> np.ndarray:
    """The embedding of a scan by a bundle, with MONAI alone."""
    try:
        from monai.bundle.config_parser import ConfigParser
    except ImportError as error:
        raise InputError(f"bundles need MONAI ({error.name}): pip install 'counterpoint[medical]'") from error
    parser = ConfigParser()
    file = Path(path) / "configs" / "inference.json"
    parser.read_config(str(file))
    parser["bundle_root"] = str(path)
    with torch.no_grad():
        return np.asarray(parser.get_parsed_content("embed")(str(scan)))
