"""ERA5: raw NetCDF as people have it, to a window store that can be trusted.

`era5_cds`, `era5_arco` -> `download.py` (requests in `cds`, `arco`, `periods`)
`era5_catalog` -> `scan.py` (headers in `catalog`, `netcdf`)
`era5_windows` -> `ingest.py` (`timeline` says which file step fills which slot, `planes` reads, `block` writes a day)
`era5_training_set` -> `prepare.py` (splits and statistics in `training_set`)
`era5_report` -> `report.py` (`pictures`)
"""
