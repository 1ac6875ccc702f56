"""Earth observation: radar and optical satellite rasters together."""
