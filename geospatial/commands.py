"""The vertical's own verbs as typed functions; their signatures are the command line, so imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import ImportReport, Outcome


def import_rasters(
    source: Path,
    out: Path,
    s1: str = "",
    s2: str = "",
    landcover: str = "",
    cloud: str = "",
    s1_bands: str = "",
    s2_bands: str = "",
    s2_offset: str = "",
    s1_unit: Literal["", "db", "linear"] = "",
    s1_calibration: Literal["", "sigma0", "gamma0"] = "",
    s1_zero: Literal["", "nodata", "value"] = "",
    days: float | None = 14.0,
    overlap: float = 0.5,
    single: bool = False,
    align: Literal["check", "nearest"] = "check",
    block: float = 0.0,
    legend: str = "",
    workers: int = 1,
) -> ImportReport:
    """Turn SOURCE (GeoTIFF, COG or JPEG 2000 files, stacked or one a band) into a manifest; the files stay there.

    Where SOURCE is a STAC item, or a folder that holds some, the items name the files, their bands, time and offset.

    Radar and optical pictures of a place are paired; every product left out is listed with its reason. Nothing is
    guessed: bands, offset, unit and time come from the files, from their names and metadata, or from these options.

    Args:
        source: a raster or a STAC item (.json), or a folder that is searched with all folders below.
        out: folder that receives manifest.parquet.
        s1: shell pattern of the Sentinel-1 files, relative to SOURCE, as in 'S1RTC/*.tif'; without any, names tell.
        s2: shell pattern of the Sentinel-2 files.
        landcover: shell pattern of maps of land cover (whole numbers, one class each).
        cloud: shell pattern of cloud masks (not 0 is cloud); ESA's SCL files are found by their names.
        s1_bands: the bands of stacked Sentinel-1 files in their order there, as in VV,VH.
        s2_bands: those of stacked Sentinel-2 files, as in B02,B03,B04,B08; L2A and L1C name ESA's orders of 12 and 13.
        s2_offset: what is added to Sentinel-2 numbers where nothing else tells: -1000 from baseline 04.00 on, 0
            before; or a CSV with the columns name,offset.
        s1_unit: decibel or linear power; values below 0 are decibel without being told.
        s1_calibration: sigma0 or gamma0, where the files do not say.
        s1_zero: what an exact 0 is in decibel files; no data unless they are rounded and hold no area of zeros.
        days: most days between the pictures of a pair; null pairs by footprint alone.
        overlap: least share of the smaller footprint that a pair has in common.
        single: keep pictures of one sensor that find no partner.
        align: what to do with grids of one CRS that lie a part of a pixel beside one another: refuse them, or take the
            nearest pixel.
        block: metres; larger rasters become rows of squares of this side, which a split can tell apart.
        legend: names of the classes of land cover, as in 1=water,2=trees.
        workers: processes that read rasters.
    """
    from counterpoint.geospatial.bands import band_list
    from counterpoint.geospatial.data.importing import Told, read_offsets
    from counterpoint.geospatial.data.importing import import_layers as run
    from counterpoint.geospatial.data.legend import read_legend
    from counterpoint.geospatial.data.pairs import Pairing

    offset, offsets = read_offsets(s2_offset)
    said = Told(
        band_list(s1_bands) if s1_bands else (), band_list(s2_bands) if s2_bands else (), s1_unit, s1_calibration,
        s1_zero, offset, offsets, read_legend(legend),
    )  # fmt: skip
    patterns = {"s1": s1, "s2": s2, "landcover": landcover, "cloud": cloud}
    return run(source, out, patterns, said, Pairing(days, overlap, single, align, block), workers)


def split(
    manifest: Path,
    out: Path | None = None,
    train: float = 0.7,
    val: float = 0.15,
    test: float | None = None,
    seed: int = 0,
    block: float = 0.0,
    gap: float = 0.0,
) -> Outcome:
    """Split MANIFEST into train, val and test by place, and say how near to one another the splits lie.

    Rows whose grounds overlap are one place, whatever their time, and stay together. With `--block` whole squares of
    latitude and longitude stay together as well.

    Args:
        manifest: the manifest file (.parquet, .csv or .jsonl).
        out: the manifest to write; by default NAME-split beside the input. In another folder it names the files from
            there.
        train: share of the training split.
        val: share of the validation split.
        test: share of the test split; the rest unless given.
        seed: seed of the draw.
        block: side of the squares in degrees; 0 splits by place alone.
        gap: kilometres; training and validation rows that lie nearer to a row of a later split go into no split.
    """
    from counterpoint.geospatial.data.splits import split_places

    return split_places(manifest, out, train, val, test, seed, block, gap)


def simulate(
    out: Path,
    scenes: int = 48,
    size: int = 128,
    seasons: int = 1,
    clouds: float = 0.0,
    offset: Literal["none", "some", "all"] = "none",
    seed: int = 0,
    change: float = 0.0,
) -> ImportReport:
    """Write synthetic scenes as GeoTIFFs: radar, optical, land cover and clouds with known causes, split by place.

    Args:
        out: folder that receives manifest.parquet and the rasters.
        scenes: places to make, on a jittered grid of latitudes and longitudes.
        size: pixels of a scene's side, of 10 m each.
        seasons: times at which each place is seen.
        clouds: share of the scenes that have clouds, each with its mask.
        offset: whether the optical files carry the offset of processing baseline 04.00; `some` mixes both.
        seed: the same seed gives the same data.
        change: share of the fields that are of another class from the second time on; maps say where.
    """
    from counterpoint.geospatial.scene_files import write_scenery

    return write_scenery(out, scenes, size, seasons, clouds, offset, seed, change)


def preview(manifest: Path, out: Path = Path("preview.html"), places: int = 12) -> Outcome:
    """Look at the places of MANIFEST: radar, true colour and land cover side by side, with what is known of them.

    Args:
        manifest: made by `data import` or `data simulate`.
        out: the HTML file to write.
        places: how many to show.
    """
    from counterpoint.geospatial.gallery import preview_page

    return preview_page(manifest, out, places)


def map_places(
    run: Path,
    out: Path = Path("maps"),
    manifest: Path | None = None,
    split: str = "test",
    checkpoint: Literal["best", "last"] = "best",
    batch_size: int = 16,
    cog: bool = False,
) -> Outcome:
    """Write a land-cover map of every place of a split as GeoTIFF, pixel for pixel where the place lies.

    Args:
        run: a run of `finetune --task dense --labels landcover`.
        out: folder of the maps; those that are there already are kept.
        manifest: map the places of this manifest instead of the run's own data.
        split: train, val or test.
        checkpoint: which weights.
        batch_size: windows at a time.
        cog: write cloud-optimised GeoTIFFs.
    """
    from counterpoint.geospatial.writers import map_classes

    return map_classes(run, manifest, out, split, checkpoint, batch_size, cog)


def change(
    run: Path,
    earlier: str,
    later: str,
    out: Path = Path("change.tif"),
    manifest: Path | None = None,
    truth: Path | None = None,
    features: str = "",
    checkpoint: Literal["best", "last"] = "best",
    batch_size: int = 16,
    cog: bool = False,
) -> Outcome:
    """Write how far the ground changed between two times, by the distance of its embeddings, as a GeoTIFF.

    A pixel is a patch of the encoder; its value is 1 - cosine, from 0 (the same) to 2, and NaN where less than half of
    the patch is data at both times (no data, clouds).

    Args:
        run: a trained run.
        earlier: a raster, a folder with the rasters of one place at one time, or the id of a row of --manifest.
        later: the same of the later time, on the same grid.
        out: the GeoTIFF to write.
        manifest: the manifest whose rows EARLIER and LATER name.
        truth: a raster of known changes (0 none, other numbers changed): AUROC and average precision are given.
        features: which dense features; `joint` where both times have both sensors, else those of one that both have.
        checkpoint: which weights.
        batch_size: windows at a time.
        cog: write a cloud-optimised GeoTIFF.
    """
    from counterpoint.geospatial.change import change_map

    return change_map(run, earlier, later, out, manifest, truth, features, checkpoint, batch_size, cog)


def demo(out: Path = Path("runs/geo-demo"), seed: int = 0, epochs: int = 15) -> Outcome:
    """Let radar and optical pictures of places learn from each other in minutes, and show it in one HTML report.

    The pictures shown beside simulated ones are those of real places under $COUNTERPOINT_DATA where there are any.

    Args:
        out: folder of the run and report.html.
        seed: seed of the scenes, the weights and the batches.
        epochs: training epochs.
    """
    from counterpoint.geospatial.demo import run_demo

    return run_demo(out, seed=seed, epochs=epochs)
