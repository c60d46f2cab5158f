"""Vision-language models: their samples, trainings, evaluation and pictures.

Stages:

    caption_language_training  language.py
    language_pruning           pruning.py
    vlm_training               training.py
    vlm_packing                packed.py
    vlm_report                 report.py

`describe.py` and `conversation.py` say what is in images, for `millrace caption` and `millrace chat`.
"""
