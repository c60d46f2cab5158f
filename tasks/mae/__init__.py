"""SatSwinMAE: pretraining on windows without captions, and what it can do beside simple baselines.

`mae_training` -> `training.py` (`objective`)
`mae_report` -> `report.py` (`evaluation`, `baselines`, `pictures`)
"""
