"""Readers for the field's files. `read_record` chooses by suffix; `read_collection` reads labelled sets of series."""

from counterpoint.common.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "read_record": "counterpoint.timeseries.readers.dispatch",
        "SUFFIXES": "counterpoint.timeseries.readers.dispatch",
        "read_wfdb": "counterpoint.timeseries.readers.wfdb",
        "read_edf": "counterpoint.timeseries.readers.edf",
        "read_ucr": "counterpoint.timeseries.readers.ucr",
        "Collection": "counterpoint.timeseries.readers.ucr",
        "read_table": "counterpoint.timeseries.readers.table",
        "read_numpy": "counterpoint.timeseries.readers.arrays",
    },
)
