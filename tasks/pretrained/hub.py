"""The Hugging Face hub: which files a checkpoint has, and each of them to the last byte.

`huggingface_hub` does the talking (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, retries). After a kill, `snapshot_download`
of its version 2.4 begins a file anew; here a file grows under a name that outlives the process, and the next run asks
for the rest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from configs.pretrained import HubCheckpoint
from storage.files import fsync

PATIENCE = 30.0
"""Seconds to wait for the list of files."""
ELSEWHERE = "or get the files another way and name their folder with --folder"
BLOCK = 2**20


class HubError(ValueError):
    """The hub gives nothing: it cannot be reached, or refuses."""


@dataclass(frozen=True)
class HubFile:
    """A file of a commit, and how to know it."""

    url: str
    name: str
    size: int
    digest: str
    """SHA-256 (hex), or the git blob id where the file lies in git itself."""

    @classmethod
    def of(cls, url: str, name: str, size: int | None, blob: str | None, sha256: str | None) -> HubFile:
        """Return a file that is listed with its size and digests; `ValueError` where the list lacks them."""
        digest = sha256 or blob
        if size is None or digest is None:
            raise ValueError(f"{url} is listed without size or digest, so it could not be verified; use another mirror")
        return cls(url, name, size, digest)


@dataclass(frozen=True)
class Listing:
    """The files of a checkpoint at one commit."""

    commit: str
    files: dict[str, HubFile]


def list_files(checkpoint: HubCheckpoint) -> Listing:
    """Ask for the commit that a revision is, and for its files; `HubError` where there is no answer."""
    api = HfApi()
    try:
        info = api.model_info(checkpoint.hub, revision=checkpoint.revision, files_metadata=True, timeout=PATIENCE)
    except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
        _refuse(checkpoint, error)
    commit = info.sha
    assert commit is not None
    files = {}
    for sibling in info.siblings or ():
        url = hf_hub_url(checkpoint.hub, sibling.rfilename, revision=commit, endpoint=api.endpoint)
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        files[sibling.rfilename] = HubFile.of(url, sibling.rfilename, sibling.size, sibling.blob_id, sha256)
    return Listing(commit, files)


def fetch_file(checkpoint: HubCheckpoint, file: HubFile, scratch: Path, target: Path) -> None:
    """Bring a file to `target`, which appears only when it is whole; a later call goes on where one was cut off.

    Raises:
        HubError: the hub cannot be reached, or refuses.
        ValueError: it sends something else than it lists.
    """
    part = scratch / f"{file.digest}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    resumed = part.exists()
    _get_rest(checkpoint, file, part)
    if resumed and not _is_right(part, file):
        part.unlink()
        _get_rest(checkpoint, file, part)
    if not _is_right(part, file):
        part.unlink()
        raise ValueError(
            f"{file.url} sends other bytes than the hub lists ({file.digest[:12]}…); run again later, {ELSEWHERE}"
        )
    fsync(part)
    part.replace(target)


def _get_rest(checkpoint: HubCheckpoint, file: HubFile, part: Path) -> None:
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # a range of compressed bytes is of no use
    with part.open("ab") as growing:
        try:
            http_get(
                file.url,
                growing,
                resume_size=growing.tell(),
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.name,
            )
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            _refuse(checkpoint, error)


def _is_right(path: Path, file: HubFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    is_sha256 = len(file.digest) == 64
    digest = hashlib.sha256() if is_sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == file.digest


def _refuse(checkpoint: HubCheckpoint, error: Exception) -> NoReturn:
    """Raise `HubError` with what a failure means and what to do; what is no failure of the hub passes."""
    name = checkpoint.hub
    match error:
        case GatedRepoError():
            told = f"{name} is gated: accept its licence on its page, and log in with hf auth login or set HF_TOKEN"
        case RevisionNotFoundError():
            told = f"{name} has no revision {checkpoint.revision!r}; correct --revision"
        case RepositoryNotFoundError():
            told = f"the hub has no model {name!r} that you may read; correct --hub, or set HF_TOKEN if it is private"
        case OfflineModeIsEnabled():
            told = f"{name} cannot be fetched while HF_HUB_OFFLINE is set; unset it, {ELSEWHERE}"
        case httpx2.TransportError():
            told = (
                f"the hub cannot be reached for {name} ({_words(error)}); what has arrived is kept. Check the network "
                f"and HF_ENDPOINT and run again, {ELSEWHERE}"
            )
        case HfHubHTTPError():
            told = f"the hub refuses {name} ({_words(error)}); what has arrived is kept. Run again later, {ELSEWHERE}"
        case _:
            raise error
    raise HubError(told) from error


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
