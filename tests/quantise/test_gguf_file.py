"""Decoders padded and written as GGUF: the logits stay, and ternary weights come back bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tasks.quantise.decoder import Codes, Decoder
from tasks.quantise.gguf_file import gguf_name, write_gguf
from tasks.quantise.padding import padded

SIZES = {"num_hidden_layers": 2, "vocab_size": 50, "max_position_embeddings": 64, "rms_norm_eps": 1e-2}
RNG = np.random.default_rng(0)


def qwen2(hidden: int, heads: int, intermediate: int, **settings):
    config = Qwen2Config(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=2,
                         intermediate_size=intermediate, **SIZES, **settings)  # fmt: skip
    return randomised(Qwen2ForCausalLM(config))


def randomised(model):
    torch.manual_seed(0)
    for parameter in model.double().parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def decoder_of(model) -> Decoder:
    return Decoder.of(model.config.to_dict(), {name: value.numpy() for name, value in model.state_dict().items()})


def rebuilt(decoder: Decoder, like):
    """The same architecture in transformers, at the sizes of a decoder."""
    config = type(like.config)(
        hidden_size=decoder.hidden, num_attention_heads=decoder.heads, num_key_value_heads=decoder.kv_heads,
        head_dim=decoder.head_width, intermediate_size=decoder.intermediate,
        tie_word_embeddings=like.config.tie_word_embeddings, **SIZES | {"rms_norm_eps": decoder.epsilon},
    )  # fmt: skip
    model = type(like)(config).double().eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in decoder.weights.items()}, strict=False)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("hidden", "heads", "intermediate"), [(56, 14, 40), (64, 16, 72), (40, 4, 64)])
def test_a_padded_decoder_gives_the_same_logits(tied, hidden, heads, intermediate):
    model = qwen2(hidden, heads, intermediate, tie_word_embeddings=tied)
    wide = padded(decoder_of(model), 64)
    assert (wide.hidden % 64, wide.intermediate % 64) == (0, 0)
    assert wide.heads * wide.head_width == wide.hidden > hidden or wide.intermediate > intermediate
    ids = torch.randint(50, (2, 12))
    torch.testing.assert_close(rebuilt(wide, model)(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


def test_a_llama_decoder_is_a_qwen2_decoder_without_biases():
    config = LlamaConfig(hidden_size=36, num_attention_heads=9, num_key_value_heads=3, intermediate_size=40,
                         tie_word_embeddings=True, **SIZES)  # fmt: skip
    model = randomised(LlamaForCausalLM(config))
    wide = padded(decoder_of(model), 16)
    assert (wide.hidden, wide.heads, wide.intermediate) == (48, 12, 48)
    ids = torch.randint(50, (2, 12))
    torch.testing.assert_close(rebuilt(wide, model)(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


def test_a_vector_that_is_continued_by_zeros_is_the_same_prefix():
    model = qwen2(56, 14, 40, tie_word_embeddings=True)
    wide = rebuilt(padded(decoder_of(model), 64), model)
    vectors = torch.randn(1, 5, 56).double()
    longer = torch.nn.functional.pad(vectors, (0, 8))
    torch.testing.assert_close(
        wide(inputs_embeds=longer).logits, model(inputs_embeds=vectors).logits, rtol=0, atol=1e-5
    )


def test_a_decoder_that_fits_is_left_alone():
    decoder = decoder_of(qwen2(64, 8, 128))
    assert padded(decoder, 64) is decoder


def ternary_codes(weight: np.ndarray, scale: float = 0.0371) -> Codes:
    return Codes.ternary(RNG.integers(-1, 2, weight.shape, np.int8), scale)


def ternary_decoder(hidden: int = 56, heads: int = 14, **replaced) -> Decoder:
    decoder = decoder_of(qwen2(hidden, heads, 40, tie_word_embeddings=True))
    weights = {
        name: ternary_codes(value) if name.endswith("proj.weight") else value for name, value in decoder.weights.items()
    }
    return Decoder.of(qwen2(hidden, heads, 40, tie_word_embeddings=True).config.to_dict(), weights | replaced)


def read_back(path) -> dict[str, np.ndarray]:
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_weights_come_back_bit_for_bit(tmp_path, kind):
    decoder = ternary_decoder()
    write_gguf(tmp_path / "model.gguf", decoder, ternary=kind, embeddings="F32")
    found, wide = read_back(tmp_path / "model.gguf"), padded(decoder)
    assert {gguf_name(name) for name in decoder.weights} == found.keys()
    for name, weight in wide.weights.items():
        if isinstance(weight, Codes):
            expected = weight.codes * np.float32(np.float16(weight.scales.item()))
            np.testing.assert_array_equal(found[gguf_name(name)], expected, name)
        else:
            np.testing.assert_allclose(found[gguf_name(name)], weight, rtol=1e-6)


def test_embeddings_of_four_and_eight_bits_and_ternary_rows_come_back_bit_for_bit(tmp_path):
    scales = RNG.uniform(0.01, 0.02, (50, 2)).astype(np.float16).astype(np.float32)
    for bits, low, high, groups in ((4, -8, 8, 2), (8, -127, 128, 1), (1.58, -1, 2, 1)):
        table = Codes(RNG.integers(low, high, (50, 64), np.int8), scales[:, :groups], bits)
        write_gguf(tmp_path / "model.gguf", ternary_decoder(64, 16, **{"model.embed_tokens.weight": table}))
        found = read_back(tmp_path / "model.gguf")["token_embd.weight"]
        assert found.shape == (50, 256)
        np.testing.assert_array_equal(found[:, :64], table.values(), f"{bits} bits")
        assert not found[:, 64:].any()


def test_layers_of_four_bits_are_padded_in_whole_groups_or_refused(tmp_path):
    name, scales = "model.layers.0.self_attn.o_proj.weight", np.full((64, 2), 0.5, np.float32)
    wide = Codes(RNG.integers(-8, 8, (64, 64), np.int8), scales, 4)
    whole = ternary_decoder(64, 2, **{name: wide})  # heads of 32, each of which is a group of inputs
    write_gguf(tmp_path / "model.gguf", whole)
    found = read_back(tmp_path / "model.gguf")["blk.0.attn_output.weight"]
    assert found.shape == (256, 256)
    assert sorted(found[found != 0].tolist()) == sorted(wide.values()[wide.values() != 0].tolist())
    across = Codes(RNG.integers(-8, 8, (96, 96), np.int8), np.full((96, 3), 0.5, np.float32), 4)
    with pytest.raises(ValueError, match="heads of this width tear groups"):  # 12 heads of 4 share keys, and 8 a scale
        write_gguf(tmp_path / "torn.gguf", ternary_decoder(96, 24, **{name: across}))


def test_plain_floats_need_no_padding(tmp_path):
    decoder = decoder_of(qwen2(64, 16, 96, tie_word_embeddings=True))
    write_gguf(tmp_path / "model.gguf", decoder, embeddings="Q8_0", linears="Q4_0")
    found = read_back(tmp_path / "model.gguf")
    assert found["blk.0.ffn_up.weight"].shape == (96, 64)
    np.testing.assert_allclose(found["token_embd.weight"], decoder.weights["model.embed_tokens.weight"], atol=0.01)


def test_what_16_bits_cannot_hold_and_what_is_missing_is_refused(tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    tiny = ternary_codes(np.zeros((40, 56)), scale=1e-6)
    with pytest.raises(ValueError, match=rf"{name}: 16-bit floats cannot hold its scale 1e-06"):
        write_gguf(tmp_path / "model.gguf", ternary_decoder(**{name: tiny}))
    decoder = ternary_decoder()
    del decoder.weights[name]
    with pytest.raises(ValueError, match=f"has no {name}"):
        write_gguf(tmp_path / "model.gguf", decoder)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "a gpt2 model has no form"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scales its rotary positions"),
        ({"use_sliding_window": True}, "sliding window"),
    ],
)
def test_what_the_engine_does_not_do_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Decoder.of(qwen2(64, 16, 96).config.to_dict() | change, {})
