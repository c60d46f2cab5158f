"""Fetches a list of images into WebDataset tars with img2dataset.

Arguments: list, output, workers, connections, shard. Answers with all CPU-seconds of this process and its workers,
their starts and imports included, and with the images that were stored.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import cpu_seconds


def main(task: dict[str, Any]) -> None:
    """Run img2dataset as its recipe for CC12M does, at our quality and with hashes."""
    from img2dataset import download

    answers = os.dup(1)
    os.dup2(2, 1)  # img2dataset and its workers print
    download(
        url_list=task["list"],
        output_folder=task["output"],
        input_format="tsv",
        url_col="url",
        caption_col="caption",
        output_format="webdataset",
        image_size=256,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=95,
        compute_hash="sha256",
        processes_count=task["workers"],
        thread_count=task["connections"],
        number_sample_per_shard=task["shard"],
        timeout=10,
        retries=0,
    )
    statistics = [json.loads(path.read_bytes()) for path in Path(task["output"]).glob("*_stats.json")]
    answer = {"cpu": cpu_seconds(), "stored": sum(part["successes"] for part in statistics)}
    os.write(answers, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
