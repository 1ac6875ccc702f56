"""Networks of the Earth-observation systems."""
