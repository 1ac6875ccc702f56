"""Node-level contrast on one graph: communities, meta-nodes, and the baselines everyone compares with."""
