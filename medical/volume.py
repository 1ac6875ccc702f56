"""A volume in patient space, and the recipe that brings every volume to the form that a system was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from counterpoint.common.errors import InputError
from counterpoint.medical.configs import RecipeConfig

AIR = -1024.0
"""What stands where a CT has no data: the lowest value that scanners reconstruct."""
VOXELS = 1 << 30
"""Voxels that a volume may have; 1024 x 1024 x 1024."""
SPACING = (0.01, 50.0)
"""Distances between voxels, in mm, that an image of a body can have."""
SHEAR = 0.5
"""Degrees by which two axes may miss a right angle and still count as orthogonal."""


@dataclass(frozen=True)
class Volume:
    """Values on a regular grid, and where the grid lies in the patient.

    Attributes:
        data: [x, y, z] values (HU for a CT), in whatever order and direction of axes the affine says.
        affine: [4, 4] from voxel indices to millimetres in RAS+, as in NIfTI: world x grows to the patient's right, y
            to anterior, z to superior.
        source: the file or folder it was read from.
        notes: what its reader assumed or mended, in sentences.
        meta: facts of the header that may travel (see `deidentify`).
    """

    data: np.ndarray
    affine: Float[np.ndarray, "4 4"]
    source: Path = field(default_factory=Path)
    notes: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along each axis of the array.

        >>> Volume(np.zeros((2, 2, 2)), np.diag([1.0, 2.0, 3.0, 1.0])).spacing
        (1.0, 2.0, 3.0)
        """
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Where the array's axes lead, to the nearest axis of the body.

        >>> Volume(np.zeros((2, 2, 2)), np.diag([-1.0, -1.0, 1.0, 1.0])).orientation
        'LPS'
        """
        import nibabel

        return "".join(nibabel.aff2axcodes(self.affine))


def check_geometry(shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Raise `InputError` for a grid that is no volume of a body: wrong rank, size, spacing, or axes that are not at
    right angles.

    >>> check_geometry((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]))
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.InputError: its affine has no extent along axis 3 (0 mm between voxels); export it again
    """
    if len(shape) != 3:
        raise InputError(f"has {len(shape)} dimensions {tuple(shape)}; a volume has three")
    if min(shape) < 2:
        raise InputError(f"of size {_by(shape)} is no volume: two voxels or more are needed along each axis")
    if int(np.prod(shape, dtype=np.int64)) > VOXELS:
        raise InputError(f"of size {_by(shape)} has more than {VOXELS:,} voxels; crop it")
    if not np.isfinite(affine).all():
        raise InputError("its affine holds NaN or infinite numbers; export it again")
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    for number, length in enumerate(lengths, start=1):
        if length < 1e-6:
            raise InputError(
                f"its affine has no extent along axis {number} ({length:g} mm between voxels); export it again"
            )
        if not SPACING[0] <= length <= SPACING[1]:
            raise InputError(
                f"has {length:g} mm between voxels along axis {number}; from {SPACING[0]:g} to {SPACING[1]:g} mm are "
                "taken (are its units millimetres?)"
            )
    cosines = np.abs((axes / lengths).T @ (axes / lengths) - np.eye(3))
    if (worst := float(cosines.max())) > np.sin(np.deg2rad(SHEAR)):
        degrees = np.rad2deg(np.arcsin(min(worst, 1.0)))
        raise InputError(
            f"its axes are not at right angles ({degrees:.1f} degrees off), as after a gantry tilt; resample it to an "
            "orthogonal grid (`data import dicom --tilt resample` does, from the DICOM files)"
        )


def check_values(data: np.ndarray) -> None:
    """Raise `InputError` for values that are no image: complex or structured, NaN, infinite, or all the same."""
    if data.dtype.kind not in "iufb":
        raise InputError(f"holds values of type {data.dtype}; one real number a voxel is expected")
    if data.dtype.kind == "f":
        bad = int(data.size - np.isfinite(data).sum())
        if bad:
            raise InputError(
                f"{bad:,} of {data.size:,} voxels are NaN or infinite; fill them (air is -1000 HU) and save it again"
            )
    if data.min() == data.max():
        raise InputError(f"all voxels have the same value ({data.flat[0]:g})")


def canonical(volume: Volume) -> Volume:
    """The same voxels with axes that lead to right, anterior and superior (nearest axes; nothing is resampled).

    >>> turned = canonical(Volume(np.arange(8).reshape(2, 2, 2), np.diag([-1.0, -1.0, 1.0, 1.0])))
    >>> turned.orientation, turned.data[0, 0, 0], turned.affine[:3, 3].tolist()
    ('RAS', np.int64(6), [-1.0, -1.0, 0.0])
    """
    from nibabel import orientations

    turn = orientations.io_orientation(volume.affine)
    data = orientations.apply_orientation(volume.data, turn)
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.data.shape)
    return replace(volume, data=data, affine=affine)


def to_recipe(volume: Volume, recipe: RecipeConfig) -> Volume:
    """A volume in the form of a recipe: RAS, its spacing, its size about the centre, and its range of values, float32.

    Axes are turned to the nearest axes of the body; an oblique acquisition stays oblique to them, by less than 45
    degrees. Values are interpolated linearly, after a Gaussian low-pass along axes that get coarser (sigma = (factor -
    1) / 2 voxels). Beyond the volume there is `recipe.outside`. `affine` maps the new grid to the patient as exactly as
    the old one did.
    """
    turned = canonical(volume)
    data = np.clip(np.asarray(turned.data, dtype=np.float32), recipe.low, recipe.high)
    factor = np.array(recipe.spacing) / np.array(turned.spacing)
    first = (np.array(data.shape) - 1) / 2 - factor * (np.array(recipe.size) - 1) / 2
    low_pass = bool((factor > 1.1).any())
    made = _resampled(data, factor, first, recipe.size, low_pass, recipe.outside)
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = np.diag(factor), first
    return replace(turned, data=made, affine=turned.affine @ grid)


def _resampled(
    data: Float[np.ndarray, "x y z"],
    factor: np.ndarray,
    first: np.ndarray,
    size: tuple[int, int, int],
    low_pass: bool,
    outside: float,
) -> Float[np.ndarray, "x2 y2 z2"]:
    """`data` at the places first + factor * i of each axis. Low-pass and interpolation work on each axis by itself, so
    each axis is one small matrix; the whole fine volume is never filtered."""
    axes = [_axis_weights(n, *axis, low_pass) for n, *axis in zip(data.shape, factor, first, size)]
    made = data[tuple(slice(start, start + weights.shape[1]) for weights, start, _ in axes)]
    # The fastest axis of memory comes last, so that no matrix product has to copy the volume.
    turned = made.T.flags.c_contiguous or made.strides[0] < made.strides[2]
    x, y, z = (weights for weights, _, _ in (axes[::-1] if turned else axes))
    made = np.ascontiguousarray(made.T if turned else made)
    made = np.matmul(y, made @ z.T)
    made = (x @ made.reshape(len(made), -1)).reshape(len(x), len(y), len(z))
    made = np.ascontiguousarray(made.T if turned else made)
    for axis, (_, _, beyond) in enumerate(axes):
        np.moveaxis(made, axis, 0)[beyond] = outside
    return made


def _axis_weights(
    n: int, factor: float, first: float, size: int, low_pass: bool
) -> tuple[Float[np.ndarray, "places used"], int, Bool[np.ndarray, " places"]]:
    """Of one axis: the weights of the `used` voxels from the first one that counts on, which one that is, and which
    places lie beyond the ends."""
    from scipy.ndimage import gaussian_filter1d

    at = (np.arange(size) + first / factor) * factor
    low = np.clip(np.floor(at), 0, max(n - 2, 0)).astype(int)
    share = np.clip(at - low, 0, 1)
    weights = np.zeros((size, n))
    weights[np.arange(size), low] = 1 - share
    weights[np.arange(size), np.minimum(low + 1, n - 1)] += share
    if low_pass and factor > 1:
        weights = weights @ gaussian_filter1d(np.eye(n), (factor - 1) / 2, axis=0, mode="nearest")
    beyond = (at < 0) | (at > n - 1)
    used = np.flatnonzero(weights[~beyond].any(axis=0)) if not beyond.all() else np.zeros(1, dtype=int)
    return weights[:, used[0] : used[-1] + 1].astype(np.float32), int(used[0]), beyond


def labels_to_recipe(volume: Volume, recipe: RecipeConfig) -> Volume:
    """A label map in the form of a recipe: on the grid that `to_recipe` gives its volume, the nearest voxel's label, 0
    outside."""
    from scipy.ndimage import affine_transform

    turned = canonical(volume)
    factor = np.array(recipe.spacing) / np.array(turned.spacing)
    first = (np.array(turned.data.shape) - 1) / 2 - factor * (np.array(recipe.size) - 1) / 2
    data = np.rint(np.asarray(turned.data)).astype(np.int16)
    made = affine_transform(data, factor, offset=first, output_shape=tuple(recipe.size), order=0, mode="constant")
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = np.diag(factor), first
    return replace(turned, data=made, affine=turned.affine @ grid)


def untilted(data: np.ndarray, affine: np.ndarray, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """Slices that a tilted gantry laid askew, each shifted within its plane onto an orthogonal grid (linear).

    The third column of the affine, the step from slice to slice, becomes its part along the slices' normal; where the
    shifted slices have no data there is `fill`.
    """
    from scipy.ndimage import shift

    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    step = affine[:3, 2]
    along = float(step @ normal) * normal
    # The part of the step that lies in the plane, in voxels of it.
    in_plane = np.linalg.lstsq(affine[:3, :2], step - along, rcond=None)[0]
    out = np.empty(data.shape, dtype=np.float32)
    for k in range(data.shape[2]):
        out[:, :, k] = shift(data[:, :, k].astype(np.float32), k * in_plane, order=1, mode="constant", cval=fill)
    straight = affine.copy()
    straight[:3, 2] = along
    return out, straight


def write_nifti(path: str | Path, data: np.ndarray, affine: np.ndarray) -> Path:
    """Write a volume as NIfTI-1 with qform and sform, in millimetres; whole numbers that fit are kept as int16."""
    import nibabel

    whole = data.dtype.kind in "iub" or bool((data == np.rint(data)).all())
    if whole and data.min() >= -(2**15) and data.max() < 2**15:
        data = np.rint(data).astype(np.int16)
    else:
        data = data.astype(np.float32)
    image = nibabel.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return Path(path)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
