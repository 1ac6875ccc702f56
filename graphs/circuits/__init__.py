"""Circuits: SPICE netlists, SPEF and DSPF parasitics, and the heterogeneous graphs made of them."""
