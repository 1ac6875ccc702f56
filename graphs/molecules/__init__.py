"""Molecules: SMILES and SDF in, graphs, scaffold splits and the element knowledge graph."""
