"""The `millrace` command line.

`cli.py` begins it. Verbs with their options are declared in groups, each calls the file that does the work:

running: `run` -> `local.py`; `plan`; `sweep` -> `sweep.py`
keeping: `status`, `show`, `verify` -> `views.py`, `released.py` (models); `pin`; `gc` -> `gc.py`; `reap` -> `reap.py`
showing: `serve` -> `serve.py`; `report` -> `report.py`
asking: `predict-fire` -> `predict_fire.py`; `narrate` -> `narrate.py`; `evaluate` -> `evaluate.py`
seeing: `caption`, `chat` -> `see.py`; `export` -> `export.py`
pulling: `models pull` -> `pull.py`
making: `new` -> `new.py`, which fills in `templates/`

They share `options.py`, `tables.py`, `interruption.py` and the settings of Prefect in `prefect_home.py`.
"""
