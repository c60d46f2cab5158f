"""Values that `prefect.yaml` refers to: where things are, and the profiles as deployment parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from configs.load import load_config, profile_names, profile_path
from flows.pipelines import ALL, find_pipelines
from flows.runner import default_root


def deployment_values() -> dict[str, Any]:
    """Return `repository`, `root`, `workers`, and per pipeline and profile a `<pipeline>_<profile>` config.

    It is a build step of `prefect.yaml`, so a deployment's parameters are its profile, written down once.
    """
    values: dict[str, Any] = {
        "repository": str(Path(__file__).resolve().parent.parent),
        "root": str(default_root()),
        "workers": os.environ.get("MILLRACE_WORKERS", "auto"),
    }
    for pipeline in find_pipelines(ALL):
        for profile in profile_names(pipeline.name):
            config = load_config(pipeline.config, profile_path(pipeline.name, profile))
            values[f"{pipeline.name}_{profile}"] = config.model_dump(mode="json", exclude_unset=True)
    return values
