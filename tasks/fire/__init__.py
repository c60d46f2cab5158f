"""Wildfire: archives of fires to token caches, trained spread models and their honest evaluation.

`fire_records` -> `records.py` (one fire in `record`; its parts in `archive`, `images`, `landscape`, `wind`, `pooling`)
`fire_cache` -> `cache.py`
`fire_split` -> `split.py` (`parts` divides, `leaks` checks)
`fire_data_report` -> `report.py` (`data_pictures`)
`fire_training` -> `training.py` (samples in `dataset`, what is trained towards in `objective`)
`fire_evaluation_report` -> `evaluate.py` (`evaluation`, `scores`, `rollout`, `dilation`; pages in `evaluation_report`)

`millrace predict-fire` predicts by `predict.py`.
"""
