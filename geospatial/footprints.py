"""`embed --format geoparquet`: a row a chip with its footprint and its embeddings, which GIS programs open as a layer.

GeoParquet 1.1: a column `geometry` of polygons as well-known binary, and what they mean in the file's metadata `geo`,
with the CRS as PROJJSON. A chip's footprint is the rectangle of its pixels in the CRS of its place. Where all places
have one CRS the polygons are in it; else they are longitudes and latitudes (OGC:CRS84), the edges followed in
`EDGE` steps, since a straight edge in one CRS is curved in another.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.data.grid import Grid, Window
from counterpoint.geospatial.data.layers import row_grid
from counterpoint.geospatial.data.raster import WGS84
from counterpoint.geospatial.writers import chips_of

FILE = "chips.parquet"
EDGE = 4
"""Parts of a footprint's edge in degrees."""
LATITUDES = "OGC:CRS84"


def write_geoparquet(
    system: Any, samples: Any, folder: Path, *, columns: tuple[str, ...], shard: int, batch_size: int, workers: int
) -> Outcome:
    """The format `geoparquet`: `chips.parquet` in `folder`, with id, group, the columns asked for, a vector a modality
    and the footprint. A file that is there already is written anew; complete or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chips, folder = chips_of(samples), Path(folder)
    options = {"facts": columns, "batch_size": batch_size, "workers": workers, "progress": "encoding"}
    found = encode_rows(system, samples, **options)
    if not found.ids:
        raise InputError(f"not one chip could be read; the first: {found.left_out[0][1]}")
    places = [getattr(samples, "positions", range(len(chips)))[p] for p in found.positions]
    grids = [chip_grid(chips, int(p)) for p in places]
    several = len({grid.crs for grid in grids}) > 1
    crs = WGS84 if several else grids[0].crs
    rings = [degrees_ring(grid) if several else ring(grid) for grid in grids]
    corners = np.concatenate(rings)
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB", "geometry_types": ["Polygon"], "crs": projjson(LATITUDES if several else crs),
                "edges": "planar", "bbox": [*corners.min(0).tolist(), *corners.max(0).tolist()],
            }
        },
    }  # fmt: skip
    table: dict[str, Any] = {"id": found.ids, "group": found.groups, **found.facts}
    for name, vectors in found.vectors.items():
        width = vectors.shape[1]
        flat = pa.array(vectors.numpy().astype(np.float32).ravel())
        table[name] = pa.FixedSizeListArray.from_arrays(flat, width)
    table["geometry"] = pa.array([polygon_wkb(r) for r in rings], pa.binary())
    meta = {"geo": json.dumps(geo)} | ({"synthetic": chips.synthetic} if chips.synthetic else {})
    path, temporary = folder / FILE, folder / f".{FILE}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table).replace_schema_metadata(meta), temporary, compression="zstd")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    figures = {"chips": len(rings), "crs": LATITUDES if several else crs, "left_out": found.left_out,
               "synthetic": chips.synthetic}  # fmt: skip
    lines = [f"{path}: {len(rings)} chips with footprints in {figures['crs']}"]
    lines += [f"SYNTHETIC data: {chips.synthetic}"] if chips.synthetic else []
    lines += [f"left out: {name}: {reason}" for name, reason in found.left_out]
    return Outcome(figures, tuple(lines), {"embeddings": path})


def chip_grid(chips: Chips, position: int) -> Grid:
    """Where the pixels of a chip lie."""
    i, r, c = chips.places[position].tolist()
    return row_grid(chips.rows[i]).part(Window(r, c, chips.cut.size, chips.cut.size))


def ring(grid: Grid) -> np.ndarray:
    """[5, 2] corners of a grid in its CRS, counter-clockwise and closed."""
    left, bottom, right, top = grid.bounds
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])


def degrees_ring(grid: Grid) -> np.ndarray:
    """The outline of a grid as longitudes and latitudes, its edges in `EDGE` parts."""
    from rasterio.warp import transform

    corners, share = ring(grid), np.arange(EDGE)[:, None] / EDGE
    dense = np.concatenate([a + share * (b - a) for a, b in pairwise(corners)] + [corners[-1:]])
    x, y = transform(grid.crs, WGS84, dense[:, 0].tolist(), dense[:, 1].tolist())
    return np.stack([x, y], 1)


def projjson(crs: str) -> dict[str, Any]:
    """A CRS as PROJJSON."""
    from rasterio.crs import CRS

    return CRS.from_user_input(crs).to_dict(projjson=True)


def polygon_wkb(points: Sequence[Sequence[float]] | np.ndarray) -> bytes:
    """A polygon of one closed ring as well-known binary, little-endian.

    >>> len(polygon_wkb([(0, 0), (1, 0), (1, 1), (0, 0)]))
    77
    """
    flat = np.asarray(points, "<f8")
    return struct.pack("<BIII", 1, 3, 1, len(flat)) + flat.tobytes()
