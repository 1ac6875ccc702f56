"""What the Earth-observation vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, SystemEntry, Vertical

_COMMANDS = "counterpoint.geospatial.commands"
_CONFIGS = "counterpoint.geospatial.configs"

vertical = Vertical(
    name="geo",
    package="counterpoint.geospatial",
    summary="radar and optical satellite rasters",
    extra="geospatial",
    systems=(
        SystemEntry(
            name="croma",
            status="experimental",
            missing="4: no claim was run with power; 2: schedule, mask ratio and batch are recalled, not published",
            paper="Fuller et al., CROMA: Remote Sensing Representations with Contrastive Radar-Optical Masked "
            "Autoencoders, NeurIPS 2023",
            summary="radar and optical encoders and a joint one, by contrast and reconstruction of masked chips",
            needs="pairs of Sentinel-1 and Sentinel-2 rasters (the embedded scene simulator by default)",
            config=f"{_CONFIGS}:CromaConfig",
            system="counterpoint.geospatial.croma:Croma",
        ),
    ),
    importers=(
        Importer("rasters", "GeoTIFF, COG and JPEG 2000: stacked files, or one a band", f"{_COMMANDS}:import_rasters"),
    ),
    split=f"{_COMMANDS}:split",
    simulate=f"{_COMMANDS}:simulate",
)
