"""What runs: one file per pipeline that reads like its DAG, and what runs pipelines.

`weather` -> `weather.py`; `wildfire` -> `wildfire.py`; `microvlm`, `trm_vlm` -> a file each, wired in `image_text.py`
`pipelines.py` finds them, `runner.py` plans and runs one, `runs.py` keeps records of runs,
`evaluation.py` finds what a model is judged on again
`deployments.py` makes Prefect flows of them, `deployment_values.py` fills in `prefect.yaml`

The `millrace` command is in `commands/`.
"""

import os

# Before NumPy is loaded: many small factorisations in two threads wait for each other, minutes on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
