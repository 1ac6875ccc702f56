"""What the Earth-observation vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, Vertical

_COMMANDS = "counterpoint.geospatial.commands"

vertical = Vertical(
    name="geo",
    package="counterpoint.geospatial",
    summary="radar and optical satellite rasters",
    extra="geospatial",
    importers=(
        Importer("rasters", "GeoTIFF, COG and JPEG 2000: stacked files, or one a band", f"{_COMMANDS}:import_rasters"),
    ),
    split=f"{_COMMANDS}:split",
    simulate=f"{_COMMANDS}:simulate",
)
