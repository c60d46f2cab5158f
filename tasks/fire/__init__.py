"""Wildfire: archives of fires to token caches, trained spread models and their honest evaluation.

Stages:

    fire_records            records.py
    fire_cache              cache.py
    fire_split              split.py
    fire_data_report        report.py
    fire_training           training.py
    fire_quantising         quantised.py
    fire_evaluation_report  evaluate.py

`predict.py` predicts one fire for `millrace predict-fire`.
"""
