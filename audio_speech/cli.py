"""What the audio vertical tells the command line; importing it costs nothing."""

from counterpoint.audio_speech.kinds import AUDIO_SUFFIXES, IMAGE_SUFFIXES, SCORE_SUFFIXES
from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_AUDIO = "counterpoint.audio_speech"
_COMMANDS = f"{_AUDIO}.commands"
_SOUNDS = f"{_AUDIO}.sounds"


def _over_scores(
    name: str, system: str, paper: str, summary: str, config: str = "ScoreTextConfig", protocols: str | None = None
) -> SystemEntry:
    """A system over pictures of music and the words of its notes."""
    return SystemEntry(
        name=name,
        status="experimental",
        missing="2: convolutions where the paper has a ViT, words of notes where it has captions",
        paper=paper,
        summary=summary,
        needs="scores (the chorales of the music21 package by default); extra audio-speech",
        config=f"{_AUDIO}.score_configs:{config}",
        system=f"{_AUDIO}.score_text:{system}",
        protocols=protocols,
    )


vertical = Vertical(
    name="audio",
    package="counterpoint.audio_speech",
    summary="audio, speech and sheet music",
    extra="audio-speech",
    systems=(
        SystemEntry(
            name="audio-sheet",
            status="experimental",
            missing="2: no halving of the rate on plateaus, sounds changed as spectrograms; 4: its check is undecided",
            paper="Carvalho, Washüttl, Widmer, Self-Supervised Contrastive Learning for Robust Audio-Sheet Music "
            "Retrieval Systems, ACM MMSys 2023",
            summary="printed music and sound in one space: find the bars that are heard, and the sound of the bars",
            needs="scores (the chorales of the music21 package by default); extra audio-speech",
            config="counterpoint.audio_speech.configs:AudioSheetConfig",
            system="counterpoint.audio_speech.audio_sheet:AudioSheet",
            protocols="counterpoint.audio_speech.identify:protocols",
        ),
        SystemEntry(
            name="clap",
            status="experimental",
            missing="2: the towers are ours, not HTSAT and RoBERTa",
            paper="Wu et al., Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and "
            "Keyword-to-Caption Augmentation, ICASSP 2023",
            summary="sounds and what is said of them in one space: search by words, zero-shot classes",
            needs="recordings with captions (the embedded generator by default); extra audio-speech",
            config=f"{_SOUNDS}.configs:CLAPConfig",
            system="counterpoint.audio_speech.clap:CLAP",
            protocols=f"{_SOUNDS}.binding:protocols",
        ),
        SystemEntry(
            name="cpc",
            status="ready",
            paper="van den Oord, Li, Vinyals, Representation Learning with Contrastive Predictive Coding, 2018",
            summary="a context of the past tells the coming sound from others; no labels",
            needs="recordings (the embedded generator by default); extra audio-speech",
            config=f"{_SOUNDS}.configs:CPCConfig",
            system="counterpoint.audio_speech.cpc:CPC",
        ),
        SystemEntry(
            name="cab-kws",
            status="experimental",
            missing="1: no code or equation is public, our reading; 4: no check has run",
            paper="Dai et al., Contrastive Augmentation: An Unsupervised Learning Approach for Keyword Spotting in "
            "Speech Technology, 2024",
            summary="keywords by example: a bottleneck that speed and volume do not change and that tells the sound",
            needs="recordings (the embedded generator by default); extra audio-speech",
            config=f"{_SOUNDS}.spotting_configs:CABKWSConfig",
            system="counterpoint.audio_speech.cab_kws:CABKWS",
            protocols=f"{_SOUNDS}.spotting:protocols",
        ),
        SystemEntry(
            name="mert",
            status="experimental",
            missing="2: the acoustic teacher is a codebook of mel frames, not EnCodec's; 4: no check has run",
            paper="Li et al., MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training, "
            "ICLR 2024",
            summary="masked frames of music told from residual codes and a constant-Q spectrum; no labels",
            needs="recordings (the embedded generator by default); extra audio-speech",
            config=f"{_SOUNDS}.mert_configs:MERTConfig",
            system="counterpoint.audio_speech.mert:MERT",
        ),
        _over_scores(
            "score-albef",
            "ScoreALBEF",
            "Li et al., Align before Fuse: Vision and Language Representation Learning with Momentum Distillation "
            "(ALBEF), NeurIPS 2021",
            "print or sound and the words of its notes: contrast, matching, masked words, momentum targets",
        ),
        _over_scores(
            "score-tcl",
            "ScoreTCL",
            "Yang et al., Vision-Language Pre-Training with Triple Contrastive Learning (TCL), CVPR 2022",
            "ALBEF with contrast within each modality and of places and words with the whole",
        ),
        _over_scores(
            "score-coca",
            "ScoreCoCa",
            "Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, TMLR 2022",
            "print or sound and the words of its notes: contrast and captions, which are transcriptions",
            config="ScoreCaptionConfig",
            protocols=f"{_AUDIO}.transcribe:protocols",
        ),
    ),
    importers=(
        Importer(
            "scores",
            "MusicXML (.musicxml, .xml, .mxl), MEI and MIDI scores: one file, or a folder and all below it",
            f"{_COMMANDS}:import_scores",
        ),
        Importer(
            "sounds",
            "recordings (WAV, FLAC, OGG, MP3, AIFF) with what names, folders and tables say of them",
            f"{_COMMANDS}:import_sounds",
        ),
        Importer("kaldi", "a Kaldi data folder: wav.scp, segments, text, utt2spk", f"{_COMMANDS}:import_kaldi"),
    ),
    data_check="counterpoint.audio_speech.importers:check_row",
    simulate=f"{_COMMANDS}:simulate",
    preview=f"{_COMMANDS}:preview",
    demo=f"{_COMMANDS}:demo",
    modalities=(
        *(
            Modality(
                name,
                endings,
                read=f"{_AUDIO}.queries:query",
                picture=f"{_AUDIO}.gallery:picture",
                caption=f"{_AUDIO}.gallery:caption",
            )
            for name, endings in (("audio", AUDIO_SUFFIXES), ("sheet", (*SCORE_SUFFIXES, *IMAGE_SUFFIXES)))
        ),
        Modality(
            "sound",
            AUDIO_SUFFIXES,
            read=f"{_SOUNDS}.queries:recording",
            picture=f"{_SOUNDS}.gallery:picture",
            caption=f"{_SOUNDS}.gallery:caption",
        ),
        Modality("words", parse=f"{_AUDIO}.score_words:parse_words", caption=f"{_AUDIO}.score_words:word_caption"),
        Modality(
            "caption",
            parse=f"{_SOUNDS}.queries:words",
            picture=f"{_SOUNDS}.gallery:picture",
            caption=f"{_SOUNDS}.gallery:caption",
        ),
    ),
    checks="counterpoint.audio_speech.checks:CHECKS",
    verbs=(OwnVerb("identify", "which piece a whole recording plays, and where in it", f"{_COMMANDS}:identify_piece"),),
)
