"""Heterogeneous graphs: nodes of several types, joined by relations and by meta-paths over them."""
