"""Checkpoints whose weights are no safetensors, rewritten."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def convert(files: Mapping[str, Path], scratch: Path, target: Path) -> None:
    """Write the checkpoint in some files, by name, into the folder `target` as `save_pretrained` does.

    GGUF files are dequantised to float32, which holds their values exactly, and bring their tokenizer along. Weights in
    PyTorch's format are read without executing what they hold.

    Raises:
        ValueError: the files cannot be read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any
    folder = _linked(files, scratch)
    gguf = next((name for name in files if name.endswith(".gguf")), None)
    with _quietly(), _readable(", ".join(files)):
        if gguf is None:
            model = _architecture(folder).from_pretrained(folder)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype="float32")
            # These say how the file was packed; the weights no longer are.
            del model.config.quantization_config
            model.hf_quantizer = None
            AutoTokenizer.from_pretrained(folder, gguf_file=gguf).save_pretrained(target)
        model.save_pretrained(target)


def _linked(files: Mapping[str, Path], scratch: Path) -> Path:
    """Return a folder that holds the files and nothing else."""
    folder = scratch / "source"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path)
    return folder


def _architecture(folder: Path) -> Any:
    """Return the class of transformers that the config names."""
    import transformers

    names = transformers.AutoConfig.from_pretrained(folder).architectures or ["none"]
    architecture = getattr(transformers, names[0], None)
    if architecture is None:
        raise ValueError(f"config.json names the architecture {names[0]}, which transformers does not have")
    return architecture


@contextlib.contextmanager
def _readable(names: str) -> Iterator[None]:
    """Turn what libraries raise about damaged files into a sentence."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{names} cannot be read as a checkpoint ({words}); get it again, or name another") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep progress bars and remarks of transformers, which says what is wrong by errors as well, off the terminal."""
    from transformers.utils import logging as remarks

    level = remarks.get_verbosity()
    remarks.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        remarks.set_verbosity(level)
