"""SatSwinMAE: pretraining on windows without captions, and what it can do beside simple baselines.

Stages:

    mae_training    training.py
    mae_quantising  quantised.py
    mae_report      report.py
"""
