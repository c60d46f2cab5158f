"""From windows to words: the join with captions, text models, adapters, and how they are judged.

`language_training` -> `language.py` (`documents`, `language_objective`)
`narrator_training` -> `training.py` (`pairs` joins windows and captions; `dataset`, `objective`)
`narration_report` -> `report.py` (`evaluation` judges, `pictures` draws)

`millrace narrate` writes by `narrate.py`.
"""
