"""Biosignals and activity sensors: WFDB, EDF, UCR/UEA and array files in; an encoder and an honest evaluation out."""

from counterpoint.common.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Comet": "counterpoint.timeseries.comet",
        "DBPM": "counterpoint.timeseries.dbpm",
        "FrameProjections": "counterpoint.timeseries.frame_projections",
        "Record": "counterpoint.timeseries.record",
        "SignalConfig": "counterpoint.timeseries.configs",
        "TS2Vec": "counterpoint.timeseries.ts2vec",
        "TS2VecEncoder": "counterpoint.timeseries.encoders",
        "WindowEncoder": "counterpoint.timeseries.backbones",
        "WindowSet": "counterpoint.timeseries.windows",
        "from_tsai": "counterpoint.timeseries.tsai_parts",
        "label_fraction": "counterpoint.timeseries.splits",
        "load_windows": "counterpoint.timeseries.manifest",
        "r_peaks": "counterpoint.timeseries.windows",
        "read_record": "counterpoint.timeseries.readers.dispatch",
        "read_ucr": "counterpoint.timeseries.readers.ucr",
        "simulated": "counterpoint.timeseries.simulate",
        "split_patients": "counterpoint.timeseries.splits",
    },
)
