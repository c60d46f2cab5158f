"""From windows to words: the join with captions, text models, adapters, and how they are judged.

Stages:

    language_training  language.py
    language_report    language_report.py
    narrator_training  training.py
    narrator_packing   packed.py
    narration_report   report.py

`narrate.py` tells of one date for `millrace narrate`.
"""
