"""Audio, speech and sheet music. Names load on first use."""

from counterpoint.common.lazy import lazy_exports

_BASE = "counterpoint.audio_speech"
_EXPORTS = {
    "AudioAugmentConfig": f"{_BASE}.configs",
    "AudioSheet": f"{_BASE}.audio_sheet",
    "AudioSheetConfig": f"{_BASE}.configs",
    "CCAProjection": f"{_BASE}.models",
    "Engraving": f"{_BASE}.engrave",
    "EngravingConfig": f"{_BASE}.configs",
    "Rendition": f"{_BASE}.configs",
    "SheetAugmentConfig": f"{_BASE}.configs",
    "SheetDataConfig": f"{_BASE}.configs",
    "SnippetDataset": f"{_BASE}.snippets",
    "SpectrogramConfig": f"{_BASE}.configs",
    "TIMBRES": f"{_BASE}.synth",
    "VGGTower": f"{_BASE}.models",
    "audio_view": f"{_BASE}.augment",
    "engrave": f"{_BASE}.engrave",
    "identify": f"{_BASE}.identify",
    "load_snippets": f"{_BASE}.snippets",
    "log_filterbank": f"{_BASE}.features",
    "read_audio": f"{_BASE}.sounds.reading",
    "same_tune": f"{_BASE}.pieces",
    "sheet_view": f"{_BASE}.augment",
    "spectrogram": f"{_BASE}.features",
    "synthesise": f"{_BASE}.synth",
}

__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
