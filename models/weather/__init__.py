"""Weather models: the vision model that is pretrained, and what joins it to a language model.

SatSwinMAE -> `sat_swin_mae.py` (blocks in `swin3d`)
the narrator -> `narrator.py`, its adapter -> `prefixer.py`
"""
