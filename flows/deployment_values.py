"""Values that `prefect.yaml` refers to: where things are, the profiles as parameters, and which schedules are on."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from configs.load import load_config, profile_names, profile_path
from flows.pipelines import ALL, find_pipelines
from flows.runner import default_root


@cache  # Prefect asks once for each deployment
def deployment_values() -> dict[str, Any]:
    """Return `repository`, `root`, `workers`, `era5_incremental`, and per profile `<pipeline>_<profile>`.

    It is a build step of `prefect.yaml`, so a deployment's parameters are its profile, written down once, and a
    schedule that somebody has switched on stays on when the deployments are registered again.
    """
    values: dict[str, Any] = {
        "repository": str(Path(__file__).resolve().parent.parent),
        "root": str(default_root()),
        "workers": os.environ.get("MILLRACE_WORKERS", "auto"),
        "era5_incremental": _is_on("weather/full", "era5-incremental"),
    }
    for pipeline in find_pipelines(ALL):
        for profile in profile_names(pipeline.name):
            config = load_config(pipeline.config, profile_path(pipeline.name, profile))
            values[f"{pipeline.name}_{profile}"] = config.model_dump(mode="json", exclude_unset=True)
    return values


def _is_on(deployment: str, schedule: str) -> bool:
    """Return whether a schedule of the server is active; without the deployment it is not."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            schedules = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            return False
    return any(found.active for found in schedules if found.slug == schedule)
