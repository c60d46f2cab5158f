"""ERA5: raw NetCDF as people have it, to a window store that can be trusted."""
