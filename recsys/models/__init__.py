"""Networks of recommenders: propagation on graphs, tables that grow, sequence encoders, towers."""
