"""What the Earth-observation vertical tells the command line; importing it costs nothing."""

from counterpoint.common.formats import Format
from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_COMMANDS = "counterpoint.geospatial.commands"
_CONFIGS = "counterpoint.geospatial.configs"
_GALLERY = "counterpoint.geospatial.gallery"
_WRITERS = "counterpoint.geospatial.writers"
_PROTOCOLS = "counterpoint.geospatial.protocols:protocols"

vertical = Vertical(
    name="geo",
    package="counterpoint.geospatial",
    summary="radar and optical satellite rasters",
    extra="geospatial",
    systems=(
        SystemEntry(
            name="croma",
            status="experimental",
            missing="2: mask ratio, schedule and batch are recalled, not in the published code",
            paper="Fuller et al., CROMA: Remote Sensing Representations with Contrastive Radar-Optical Masked "
            "Autoencoders, NeurIPS 2023",
            summary="radar and optical encoders and a joint one, by contrast and reconstruction of masked chips",
            needs="pairs of Sentinel-1 and Sentinel-2 rasters (the embedded scene simulator by default)",
            config=f"{_CONFIGS}:CromaConfig",
            system="counterpoint.geospatial.croma:Croma",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="mdico",
            status="experimental",
            missing="2: the encoders of chips are ours",
            paper="Mena et al., Multi-modal co-learning for Earth Observation, Machine Learning 114, 2025",
            summary="two sensors with labels in training, one alone in use: shared and specific parts of each",
            needs="pairs of Sentinel-1 and Sentinel-2 rasters with land cover or labels (the simulator by default)",
            config=f"{_CONFIGS}:MDiCoConfig",
            system="counterpoint.geospatial.mdico:MDiCo",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="sample4geo",
            status="experimental",
            missing="2: its encoder starts from random weights, the official one from ImageNet's",
            paper="Deuser et al., Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation, ICCV 2023",
            summary="two views of a place (radar and optical, or two times) contrasted in batches of neighbours",
            needs="pairs of Sentinel-1 and Sentinel-2 rasters, or one sensor at several times (simulator by default)",
            config="counterpoint.geospatial.cross_view_configs:Sample4GeoConfig",
            system="counterpoint.geospatial.sample4geo:Sample4Geo",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="phg-mae",
            status="experimental",
            missing="1, 2: the training is ours, from the abstract; the network alone is checked against released code",
            paper="Pirvu and Leordeanu, Probabilistic Hyper-Graphs using Multiple Randomly Masked Autoencoders for "
            "Semi-supervised Multi-modal Multi-task Learning, 2025",
            summary="whole modalities hidden at random, all predicted with the land cover; many masks as an ensemble",
            needs="Sentinel-1 and Sentinel-2 rasters, with maps of land cover for the task (the simulator by default)",
            config="counterpoint.geospatial.hyper_graph_configs:PHGMAEConfig",
            system="counterpoint.geospatial.phg_mae:PHGMAE",
            protocols="counterpoint.geospatial.mask_ensembles:ensemble_protocols",
        ),
        SystemEntry(
            name="summit",
            status="experimental",
            missing="2: the segmenters are ours",
            paper="Simons et al., SUMMIT: Source-Free Adaptation of Uni-Modal Models to Multi-Modal Targets, ICCV 2023",
            summary="a radar and an optical segmenter adapted together to a new region by their joint pseudo-labels",
            needs="Sentinel-1 and Sentinel-2 rasters with land cover, then others without (the simulator by default)",
            config="counterpoint.geospatial.adaptation_configs:SummitConfig",
            system="counterpoint.geospatial.summit:Summit",
            protocols="counterpoint.geospatial.adaptation:adaptation_protocols",
        ),
        SystemEntry(
            name="two-tower",
            status="experimental",
            missing="2: a baseline, with sizes and schedule of ours",
            paper="baseline after Radford et al., Learning Transferable Visual Models From Natural Language "
            "Supervision, 2021",
            summary="two encoders contrasted on whole chips, without masks and without reconstruction",
            needs="pairs of Sentinel-1 and Sentinel-2 rasters (the embedded scene simulator by default)",
            config=f"{_CONFIGS}:SensorTowersConfig",
            system="counterpoint.geospatial.baselines:SensorTowers",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="optical-mae",
            status="experimental",
            missing="2: a baseline, with sizes and schedule of ours",
            paper="baseline after He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
            summary="the optical encoder alone, by reconstruction of masked chips",
            needs="Sentinel-2 rasters (the embedded scene simulator by default)",
            config=f"{_CONFIGS}:OpticalMAEConfig",
            system="counterpoint.geospatial.baselines:OpticalMAE",
            protocols=_PROTOCOLS,
        ),
    ),
    importers=(
        Importer(
            "rasters",
            "GeoTIFF, COG and JPEG 2000, stacked or one a band, and STAC items",
            f"{_COMMANDS}:import_rasters",
        ),
    ),
    data_check="counterpoint.geospatial.data.checking:check_row",
    split=f"{_COMMANDS}:split",
    simulate=f"{_COMMANDS}:simulate",
    preview=f"{_COMMANDS}:preview",
    demo=f"{_COMMANDS}:demo",
    modalities=tuple(
        Modality(name, read=f"{_GALLERY}:query", picture=f"{_GALLERY}:picture", caption=f"{_GALLERY}:caption")
        for name in ("s1", "s2")
    ),
    checks="counterpoint.geospatial.checks:CHECKS",
    embedding_formats=(
        Format("geotiff", "", "a GeoTIFF a place: a pixel a patch, a band a dimension", f"{_WRITERS}:write_geotiff"),
        Format("cog", "", "the same, cloud-optimised", f"{_WRITERS}:write_cog"),
        Format(
            "geoparquet",
            "",
            "a row a chip with its footprint",
            "counterpoint.geospatial.footprints:write_geoparquet",
        ),
    ),
    verbs=(
        OwnVerb("map", "write land-cover maps of whole places as GeoTIFFs", f"{_COMMANDS}:map_places"),
        OwnVerb("change", "write a map of change between two times by embedding distance", f"{_COMMANDS}:change"),
    ),
)
