"""Decoders as GGUF files for llama.cpp: ternary weights without loss, beside integers and floats.

llama.cpp multiplies ternary weights in blocks of 256 inputs with a 16-bit scale each (TQ1_0 has 1.6875 bits a weight,
TQ2_0 has 2.0625 and is a little faster). A decoder with other sizes is padded with zeros first, see `padding.py`;
vectors that are fed to it then have zeros at their end. Files hold no vocabulary: token ids go in, logits come out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from storage.files import atomic_path
from tasks.quantise.decoder import Codes, Decoder, Weight
from tasks.quantise.padding import padded

if TYPE_CHECKING:
    from gguf import GGUFWriter

TernaryType = Literal["TQ1_0", "TQ2_0"]
FloatType = Literal["F32", "F16", "Q8_0", "Q4_0"]
Bytes = NDArray[np.uint8]

TERNARY_BLOCK, BLOCK = 256, 32
"""Inputs that share a scale in ternary types, and in Q8_0 and Q4_0."""
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(
    path: Path,
    decoder: Decoder,
    *,
    ternary: TernaryType = "TQ1_0",
    embeddings: FloatType = "Q4_0",
    linears: FloatType = "Q8_0",
) -> None:
    """Write a decoder.

    Ternary codes become `ternary`, codes of 4 and 8 bits Q4_0 and Q8_0, all of them exactly but for scales, which
    become 16-bit floats. Matrices of floats are rounded: embeddings and head to `embeddings`, others to `linears`.
    `ValueError` for scales that 16 bits cannot hold, and for weights that are missing.
    """
    is_ternary = any(isinstance(weight, Codes) and weight.bits == 1.58 for weight in decoder.weights.values())
    decoder = padded(decoder, TERNARY_BLOCK if is_ternary else BLOCK)
    writer = _header(path, decoder)
    for name in _names(decoder):
        if name not in decoder.weights:
            raise ValueError(f"the decoder has no {name}, and without it no engine can run it")
        kind = embeddings if name in ("model.embed_tokens.weight", "lm_head.weight") else linears
        try:
            _add(writer, gguf_name(name), decoder.weights[name], ternary, kind)
        except ValueError as error:
            raise ValueError(f"weight {name}: {error}") from error
    with atomic_path(path) as partial:
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def embeddings_in(path: Path) -> tuple[str, int]:
    """Return what the embeddings of a GGUF file are stored as, and where in it they begin, in bytes."""
    from gguf import GGUFReader

    (table,) = (tensor for tensor in GGUFReader(path).tensors if tensor.name == "token_embd.weight")
    return table.tensor_type.name, int(table.data_offset)


def gguf_name(name: str) -> str:
    """Return what llama.cpp calls a weight of transformers.

    `gguf_name("model.layers.3.mlp.up_proj.weight") => "blk.3.ffn_up.weight"`
    """
    place, _, kind = name.rpartition(".")
    if not place.startswith("model.layers."):
        return f"{NAMES[place]}.{kind}"
    number, _, rest = place.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{LAYER_NAMES[rest]}.{kind}"


def _header(path: Path, decoder: Decoder) -> GGUFWriter:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "qwen2")
    writer.add_block_count(decoder.layers)
    writer.add_context_length(decoder.positions)
    writer.add_embedding_length(decoder.hidden)
    writer.add_feed_forward_length(decoder.intermediate)
    writer.add_head_count(decoder.heads)
    writer.add_head_count_kv(decoder.kv_heads)
    writer.add_key_length(decoder.head_width)
    writer.add_value_length(decoder.head_width)
    writer.add_rope_dimension_count(decoder.head_width)
    writer.add_rope_freq_base(decoder.rope_base)
    writer.add_layer_norm_rms_eps(decoder.epsilon)
    writer.add_vocab_size(decoder.vocabulary)
    writer.add_tokenizer_model("none")
    return writer


def _names(decoder: Decoder) -> list[str]:
    inside = [f"model.layers.{n}.{name}.weight" for n in range(decoder.layers) for name in LAYER_NAMES]
    beside = [name for name in decoder.weights if name.endswith(".bias") or name == "lm_head.weight"]
    return ["model.embed_tokens.weight", *inside, *beside, "model.norm.weight"]


def _add(writer: GGUFWriter, name: str, weight: Weight, ternary: TernaryType, floats: FloatType) -> None:
    import gguf

    if isinstance(weight, Codes):
        kind = gguf.GGMLQuantizationType[{1.58: ternary, 4: "Q4_0", 8: "Q8_0"}[weight.bits]]
        packed = _ternary_blocks(weight, ternary) if weight.bits == 1.58 else _integer_blocks(weight)
        writer.add_tensor(name, packed, raw_dtype=kind)
    elif weight.ndim == 1 or floats == "F32":
        writer.add_tensor(name, weight.astype(np.float32))
    elif floats == "F16":
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        kind = gguf.GGMLQuantizationType[floats]
        writer.add_tensor(name, gguf.quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind)


def _ternary_blocks(weight: Codes, kind: TernaryType) -> Bytes:
    """Return (outputs, bytes); the quantiser of gguf finds the scale of a block as its largest magnitude."""
    import gguf

    _half(weight.scales)
    packed: Bytes = gguf.quants.quantize(weight.values(), gguf.GGMLQuantizationType[kind])
    return packed


def _integer_blocks(weight: Codes) -> Bytes:
    """Return (outputs, bytes): for each 32 inputs a scale, and bytes of one integer or of the i-th and (i + 16)-th."""
    outputs, inputs = weight.shape
    if inputs % BLOCK or (inputs // weight.scales.shape[1]) % BLOCK:
        raise ValueError(f"{inputs} inputs with {weight.scales.shape[1]} scales are no whole blocks of {BLOCK}")
    blocks = weight.codes.reshape(outputs, inputs // BLOCK, BLOCK)
    repeats = blocks.shape[1] // weight.scales.shape[1]
    scales = np.broadcast_to(np.repeat(_half(weight.scales), repeats, axis=1), blocks.shape[:2])
    if weight.bits == 4:
        nibbles = (blocks + 8).astype(np.uint8)
        content = nibbles[..., :16] | nibbles[..., 16:] << 4
    else:
        content = blocks.view(np.uint8)
    heads = np.ascontiguousarray(scales)[..., None].view(np.uint8)
    return np.concatenate([heads, content], axis=-1).reshape(outputs, -1)


def _half(scales: NDArray[np.floating]) -> NDArray[np.float16]:
    """Return scales as 16-bit floats; `ValueError` where those are not even nearly the same."""
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    far = scales[np.abs(halves - scales) > 1e-3 * np.abs(scales)]
    if far.size:
        raise ValueError(f"16-bit floats cannot hold its scale {far[0]:.3g}; train with weights of an ordinary size")
    return halves
