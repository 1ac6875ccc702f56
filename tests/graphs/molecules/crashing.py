"""A molecule file whose rows end the process that reads them, for worker processes to import."""

import os

from counterpoint.graphs import importers
from counterpoint.graphs.molecules import arrays as arrays_module
from counterpoint.graphs.molecules import reader


def read(watch, source, deadly, **options):
    """The importer's reader, under an RDKit that some molecules end."""
    parse, inchikeys = reader.parsed, reader.inchikeys

    def parsed(smiles, log):
        return os.abort() if smiles in deadly else parse(smiles, log)

    def keys(smiles):
        return os.abort() if set(smiles) & set(deadly) else inchikeys(smiles)

    reader.parsed, reader.inchikeys = parsed if options.pop("when", "parse") == "parse" else parse, keys
    try:
        return importers.read_with_scaffolds(watch, source, **options)
    finally:
        reader.parsed, reader.inchikeys = parse, inchikeys


def arrays(smiles, watch):
    """`molecule_arrays` under an RDKit that CCBr and CCCl end."""
    parse = arrays_module.parse_smiles
    arrays_module.parse_smiles = lambda text: os.abort() if text in ("CCBr", "CCCl") else parse(text)
    try:
        return arrays_module.molecule_arrays(smiles, watch)
    finally:
        arrays_module.parse_smiles = parse
