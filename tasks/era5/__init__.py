"""ERA5: raw NetCDF as people have it, to a window store that can be trusted.

Stages:

    era5_cds, era5_arco  download.py
    era5_catalog         scan.py
    era5_windows         ingest.py
    era5_training_set    prepare.py
    era5_report          report.py
"""
