"""Fetches a list of images into WebDataset tars with img2dataset; arguments: list, output, workers, connections, shard.

Answers with all CPU-seconds of this process and its workers, their starts and imports included.
"""

from __future__ import annotations

import contextlib
import json
import sys

from benchmarks.stopwatch import cpu_seconds


def main(task: dict[str, str]) -> None:
    """Run img2dataset with the settings that CC12M's recipe has, hashes included."""
    from img2dataset import download

    with contextlib.redirect_stdout(sys.stderr):
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
            processes_count=int(task["workers"]),
            thread_count=int(task["connections"]),
            number_sample_per_shard=int(task["shard"]),
            timeout=10,
            retries=0,
            enable_wandb=False,
        )
    print(json.dumps({"cpu": cpu_seconds()}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
