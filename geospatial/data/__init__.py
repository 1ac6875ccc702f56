"""From rasters as they are to chips on one grid, and back."""
