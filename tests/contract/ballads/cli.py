"""What the vertical tells the command line; importing it costs nothing."""

from counterpoint.common.plugins import PluginEntry
from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_COMMANDS = "ballads.commands"
_SHOWN = {"picture": "ballads.gallery:picture", "caption": "ballads.gallery:words"}

vertical = Vertical(
    name="ballads",
    package="ballads",
    summary="tunes and what people say of them",
    extra="ballads",
    systems=(
        SystemEntry(
            name="common-words",
            status="experimental",
            paper="A. Singer, Tunes and Common Words, 2026",
            summary="verses find their captions by inner product; frequent words count less",
            needs="tunes (.tune) with captions",
            config="ballads.configs:BalladConfig",
            system="ballads.system:CommonWords",
            protocols="ballads.protocols:protocols",
        ),
    ),
    importers=(Importer("tunes", "a folder of .tune files", f"{_COMMANDS}:import_tunes"),),
    data_check="ballads.songs:check_row",
    simulate=f"{_COMMANDS}:simulate",
    preview=f"{_COMMANDS}:preview",
    demo=f"{_COMMANDS}:demo",
    modalities=(
        Modality("tune", endings=(".tune",), read="ballads.gallery:read_tune", parse="ballads.gallery:parse", **_SHOWN),
        Modality("caption", parse="ballads.gallery:parse", **_SHOWN),
    ),
    checks="ballads.checks:CHECKS",
    verbs=(OwnVerb("hum", "a tune that suits a caption", f"{_COMMANDS}:hum"),),
)

short_captions = PluginEntry(
    "short_captions",
    "weighs verses with long captions down",
    "A. Singer, Say Less, 2026",
    "ballads.plugin:ShortCaptions",
    "ballads.configs:ShortCaptionsConfig",
)
