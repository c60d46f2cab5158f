"""Language models behind one interface: equal to their own kind, causal, frozen, adapted, and able to write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from configs.language import (
    Adaptation,
    AutoLanguageConfig,
    HrmActV1Config,
    HrmTextLanguageConfig,
    HrmTextSizes,
    LanguageModelConfig,
    LlamaLanguageConfig,
    LlamaSizes,
    LoraSettings,
    Qwen2LanguageConfig,
    Qwen2Sizes,
)
from models.language.adaptation import adapt, build_adapted, merge_adapters
from models.language.build import build_language_model
from models.language.hrm_act import log_stablemax
from models.language.hrm_act_lm import HrmActLM
from models.language.interface import LanguageModel
from models.language.recurrent import Past
from models.language.transformers_lm import TransformersLM
from tasks.keys import config_in_key

VOCABULARY = 50
LLAMA = LlamaLanguageConfig(
    pretrained=None, sizes=LlamaSizes(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64, positions=48)
)
HRM_TEXT = HrmTextLanguageConfig(
    pretrained=None, sizes=HrmTextSizes(hidden=32, layers=2, heads=4, intermediate=64, positions=48)
)
QWEN2 = Qwen2LanguageConfig(
    pretrained=None, sizes=Qwen2Sizes(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64, positions=48)
)
HRM_ACT = HrmActV1Config(hidden=32, h_layers=1, l_layers=1, heads=4, expansion=2, positions=48, max_steps=2)
CONFIGS: dict[str, LanguageModelConfig] = {
    "llama": LLAMA, "qwen2": QWEN2, "hrm_text": HRM_TEXT, "hrm_act_v1": HRM_ACT,
}  # fmt: skip
LORA = LoraSettings(r=4, alpha=8)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(params=CONFIGS)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return sharpened(build_language_model(CONFIGS[request.param], VOCABULARY))


def sharpened(lm: LanguageModel) -> LanguageModel:
    """Make the choice of a token clear, so that rounding cannot change it."""
    with torch.no_grad():
        lm.heads[0].weight.mul_(20)
    return lm


def prompts(lm: LanguageModel, length: int = 6) -> tuple[Tensor, Tensor]:
    """Return soft prompts on the scale of the embedding table, and their mask."""
    return torch.randn(2, length, lm.width) * lm.embedding_scale(), torch.ones(2, length, dtype=torch.long)


def training(lm: LanguageModel) -> list[str]:
    return [name for name, module in lm.named_modules() if module.training]


def caption_loss(lm: LanguageModel, prefix: Tensor, ids: Tensor) -> Tensor:
    embeds = torch.cat([prefix, lm.embed_tokens(ids)], 1)
    logits = lm(embeds, torch.ones(embeds.shape[:2]))[:, prefix.shape[1] - 1 : -1]
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


def test_interface_tells_the_sizes(lm):
    assert (lm.width, lm.vocabulary, lm.positions) == (32, VOCABULARY, 48)
    table = lm.embed_tokens(torch.arange(VOCABULARY))
    assert lm.embedding_scale() == pytest.approx(table.square().mean().sqrt().item())


def test_embedded_tokens_give_the_logits_of_the_library():
    ids = torch.randint(VOCABULARY, (2, 8))
    for config in (LLAMA, QWEN2, HRM_TEXT):
        lm = build_language_model(config, VOCABULARY).eval()
        torch.testing.assert_close(lm(lm.embed_tokens(ids)), lm.hf(input_ids=ids).logits)


def test_logits_of_hrm_act_are_its_stablemax():
    lm = build_language_model(HRM_ACT, VOCABULARY)
    x, mask = prompts(lm)
    expected = log_stablemax(lm.hrm.forward_with_embeds(x, mask, steps=2)).exp()
    torch.testing.assert_close(lm(x, mask).softmax(-1), expected)


def test_a_changed_embedding_moves_no_earlier_logits(lm):
    x, mask = prompts(lm)
    changed = x.clone()
    changed[:, 4] += lm.embedding_scale()
    moved = (lm(changed, mask) - lm(x, mask)).abs().amax((0, 2))
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 0).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_effect(lm, side):
    x, mask = prompts(lm)
    padding, absent = torch.full((2, 3, lm.width), 5 * lm.embedding_scale()), torch.zeros(2, 3, dtype=torch.long)
    left = side == "left"
    padded = torch.cat([padding, x] if left else [x, padding], 1)
    found = lm(padded, torch.cat([absent, mask] if left else [mask, absent], 1))
    torch.testing.assert_close(found[:, 3:] if left else found[:, :6], lm(x), rtol=1e-3, atol=1e-3)


def test_gradient_reaches_soft_prompts_through_a_frozen_model_and_nothing_else(lm):
    lm.freeze()
    x, _ = prompts(lm)
    prefix = x.requires_grad_()
    caption_loss(lm, prefix, torch.randint(VOCABULARY, (2, 5))).backward()
    assert (prefix.grad.abs().amax((0, 2)) > 0).all()
    assert all(parameter.grad is None for parameter in lm.parameters())


def greedy(lm: LanguageModel, x: Tensor, mask: Tensor, count: int) -> list[list[int]]:
    """Take the likeliest token, computing everything anew for each."""
    found = []
    for _ in range(count):
        found.append(lm(x, mask)[:, -1].argmax(-1))
        x = torch.cat([x, lm.embed_tokens(found[-1])[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return torch.stack(found, 1).tolist()


def write(lm: LanguageModel, x: Tensor, mask: Tensor, **settings) -> list[list[int]]:
    return lm.generate(x, mask, **({"max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0, "end": -1} | settings))


@torch.no_grad()
def test_greedy_generation_equals_a_loop_without_cache(lm):
    x, mask = prompts(lm)
    expected = greedy(lm.eval(), x, mask, 8)
    assert write(lm, x, mask) == expected
    end = expected[0][3]
    assert write(lm, x, mask, end=end) == [row[: row.index(end)] if end in row else row for row in expected]
    mask[1, :3] = 0
    assert write(lm, x, mask)[1] == greedy(lm, x[1:, 3:], mask[1:, 3:], 8)[0]


def test_generation_equals_that_of_the_library():
    lm = sharpened(build_language_model(LLAMA, VOCABULARY)).eval()
    x, mask = prompts(lm)
    expected = lm.hf.generate(inputs_embeds=x, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert write(lm, x, mask) == expected.tolist()


def test_sampling_is_seeded_and_leaves_the_global_generator_alone(lm):
    x, mask = prompts(lm)

    def sampled(seed: int, **settings) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return write(lm, x, mask, **({"temperature": 3.0, "generator": generator} | settings))

    before = torch.get_rng_state()
    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert sampled(1, top_p=1e-6) == write(lm, x, mask)
    with pytest.raises(ValueError, match="needs a generator"):
        sampled(1, generator=None)


class Fixed(HrmActLM):
    """Writes by a given distribution, whatever it reads."""

    def __init__(self, probability: Tensor) -> None:
        super().__init__(HRM_ACT, len(probability))
        self.logits = probability.log()

    def _read(self, inputs_embeds: Tensor, attention_mask: Tensor, past: Past) -> Tensor:
        return self.logits.expand(*inputs_embeds.shape[:2], -1)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(1.0, [0.1, 0.4, 0.2, 0.3]), (0.9, [0, 4 / 9, 2 / 9, 3 / 9]), (0.7, [0, 4 / 7, 0, 3 / 7]), (0.4, [0, 1, 0, 0])],
)
def test_tokens_are_drawn_from_the_smallest_set_with_the_probability(top_p, expected):
    lm = Fixed(torch.tensor([0.1, 0.4, 0.2, 0.3]))
    x, mask = torch.zeros(4000, 2, 32), torch.ones(4000, 2)
    settings = {"temperature": 1.0, "top_p": top_p - 1e-4, "generator": torch.Generator().manual_seed(0)}
    tokens = torch.tensor(write(lm, x, mask, max_new_tokens=1, **settings)).flatten()
    share = torch.bincount(tokens, minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor(expected).float(), rtol=0, atol=0.03)


def test_what_cannot_be_written_is_refused(lm):
    x, mask = prompts(lm)
    with pytest.raises(ValueError, match="49 positions; this language model takes 48"):
        write(lm, x, mask, max_new_tokens=43)
    with pytest.raises(ValueError, match="at least 1"):
        write(lm, x, mask, max_new_tokens=0)
    with pytest.raises(ValueError, match="on the left"):
        write(lm, x, 1 - torch.eye(6, dtype=torch.long)[4:])
    with pytest.raises(ValueError, match="49 positions"):
        lm(torch.zeros(1, 49, lm.width))


def test_a_frozen_model_stays_in_evaluation_mode():
    hf = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=1, n_head=2))
    lm = TransformersLM(hf)
    x, _ = prompts(lm)
    assert not torch.equal(lm(x), lm(x))  # GPT-2 has dropout
    lm.freeze()
    whole = nn.ModuleList([lm, nn.Dropout()]).train()
    assert whole.training
    assert training(lm) == []
    assert torch.equal(lm(x), lm(x))


def test_an_unfrozen_model_changes_its_mode(lm):
    trained = {
        name
        for name, module in lm.train().named_modules()
        if (p := [*module.parameters()]) and all(q.requires_grad for q in p)
    }
    assert len(trained) > 10
    modes = training(lm)
    assert trained <= set(modes)
    write(lm, *prompts(lm))
    assert training(lm) == modes
    assert training(lm.eval()) == []


def test_only_the_dropout_of_adapters_trains():
    lm = build_adapted(LLAMA, VOCABULARY, Adaptation(lora=LORA)).train()
    modes = training(lm)
    assert len([name for name in modes if name.endswith("lora_dropout.default")]) == 14
    assert all("lora_" in name for name in modes if name)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("four_bit", [False, True])
def test_adapters_learn_a_caption_and_nothing_else_does(name, four_bit):
    adaptation = Adaptation(four_bit=four_bit, lora=LORA)
    lm = build_adapted(CONFIGS[name], VOCABULARY, adaptation).train()
    trained = {key: p for key, p in lm.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in key and p.dtype == torch.float32 for key, p in trained.items())
    assert any(p.dtype == torch.uint8 for p in lm.parameters()) == four_bit
    frozen = {key: p.detach().clone() for key, p in lm.named_parameters() if key not in trained}
    prefix = prompts(lm)[0].requires_grad_()
    ids = torch.randint(VOCABULARY, (2, 6))
    optimiser = torch.optim.AdamW([*trained.values(), prefix], lr=0.02)
    losses = []
    for _ in range(8):
        loss = caption_loss(lm, prefix, ids)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
    after = dict(lm.named_parameters())
    assert all(torch.equal(after[key], value) for key, value in frozen.items())


@pytest.mark.parametrize("name", CONFIGS)
def test_what_adapters_learned_is_merged_into_plain_layers(name):
    lm = build_adapted(CONFIGS[name], VOCABULARY, Adaptation(lora=LORA)).eval()
    plain = {key for key, _ in build_language_model(CONFIGS[name], VOCABULARY).named_parameters()}
    for key, parameter in lm.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    x, mask = prompts(lm)
    with torch.no_grad():
        expected = lm(x, mask)
        merge_adapters(lm)
        torch.testing.assert_close(lm(x, mask), expected, atol=1e-4, rtol=1e-4)
    assert {key for key, _ in lm.named_parameters()} == plain


def test_what_lies_in_four_bits_already_is_not_merged():
    lm = build_adapted(LLAMA, VOCABULARY, Adaptation(four_bit=True, lora=LORA))
    with pytest.raises(ValueError, match="lies in four bits"):
        merge_adapters(lm)


def test_gradient_passes_through_4_bit_layers_after_an_evaluation():
    lm = build_adapted(LLAMA, VOCABULARY, Adaptation(four_bit=True, lora=LORA))
    x, mask = prompts(lm)
    ids = torch.randint(VOCABULARY, (2, 6))
    gradients = []
    for _ in range(2):
        prefix = x.clone().requires_grad_()
        caption_loss(lm.eval(), prefix, ids).backward()
        gradients.append(prefix.grad)
        write(lm, x, mask)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


def test_4_bit_layers_are_close_to_what_they_replace():
    lm = build_language_model(LLAMA, VOCABULARY)
    x, mask = prompts(lm)
    expected = lm.eval()(x, mask)
    adapt(lm, Adaptation(four_bit=True))
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in lm.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 14
    assert all(layer.weight.quant_state.nested and layer.weight.quant_type == "nf4" for layer in layers)
    assert all(layer.compute_dtype == torch.bfloat16 for layer in layers)
    error = (lm(x, mask) - expected).square().mean() / expected.square().mean()
    assert 0 < error < 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_block_can_be_trained_alone(name):
    lm = build_adapted(CONFIGS[name], VOCABULARY, Adaptation(unfreeze_last_block=True)).train()
    block = {id(p) for p in lm.last_block.parameters()}
    assert block == {id(p) for p in lm.parameters() if p.requires_grad}
    assert all(module.training for module in lm.last_block.modules())
    caption_loss(lm, prompts(lm)[0], torch.randint(VOCABULARY, (2, 6))).backward()
    assert all(p.grad.abs().sum() > 0 for p in lm.last_block.parameters())
    with pytest.raises(ValidationError, match="cannot train 4-bit weights"):
        Adaptation(four_bit=True, unfreeze_last_block=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpointed_gradients_are_the_same_and_generation_keeps_its_cache(name):
    ids = torch.randint(VOCABULARY, (2, 6))
    gradients, written, kept = [], [], []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        adaptation = Adaptation(gradient_checkpointing=checkpointing)
        lm = sharpened(build_adapted(CONFIGS[name], VOCABULARY, adaptation)).train()
        x, mask = prompts(lm)
        prefix = x.clone().requires_grad_()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            loss = caption_loss(lm, prefix, ids)
        loss.backward()
        gradients.append(prefix.grad)
        written.append(write(lm, x, mask))
        kept.append(sum(saved))
    torch.testing.assert_close(*gradients)
    assert written[0] == written[1]
    assert kept[1] < 0.7 * kept[0]


def test_any_causal_model_in_a_folder_is_loaded(tmp_path):
    hf = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=2)).eval()
    hf.save_pretrained(tmp_path / "gpt2")
    lm = build_language_model(AutoLanguageConfig(pretrained=str(tmp_path / "gpt2")), 40).eval()
    ids = torch.randint(40, (2, 7))
    torch.testing.assert_close(lm(lm.embed_tokens(ids)), hf(ids).logits)
    assert (lm.width, lm.vocabulary, lm.positions) == (32, VOCABULARY, 32)
    # Its positions are learned, so padding moves every token unless it is not counted.
    mask = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 1, 1]])
    expected = lm(lm.embed_tokens(ids[1:, 2:]))
    torch.testing.assert_close(lm(lm.embed_tokens(ids), mask)[1:, 2:], expected)


@pytest.mark.parametrize("name", ["llama", "qwen2", "hrm_text"])
@pytest.mark.parametrize("four_bit", [False, True])
def test_pretrained_weights_come_from_a_folder(tmp_path, name, four_bit):
    saved = build_language_model(CONFIGS[name], VOCABULARY)
    saved.hf.save_pretrained(tmp_path)
    config = type(CONFIGS[name])(pretrained=str(tmp_path))
    lm = build_adapted(config, VOCABULARY, Adaptation(four_bit=four_bit)).eval()
    x, mask = prompts(lm)
    error = (lm(x, mask) - saved.eval()(x, mask)).square().mean() / saved(x, mask).square().mean()
    assert error < 0.1 if four_bit else error == 0


def test_what_cannot_be_loaded_ends_in_a_clear_sentence(tmp_path):
    build_language_model(LLAMA, VOCABULARY).hf.save_pretrained(tmp_path / "llama")
    clip_config = CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    CLIPTextModel(clip_config).save_pretrained(tmp_path / "clip")
    llama, clip = str(tmp_path / "llama"), str(tmp_path / "clip")
    with pytest.raises(ValueError, match="is a llama model; name a hrm_text model"):
        build_language_model(HrmTextLanguageConfig(pretrained=llama), VOCABULARY)
    with pytest.raises(ValueError, match="name a causal language model"):
        build_language_model(AutoLanguageConfig(pretrained=clip), VOCABULARY)
    with pytest.raises(ValueError, match="cannot be loaded"):
        build_language_model(AutoLanguageConfig(pretrained=str(tmp_path / "none")), VOCABULARY)
    with pytest.raises(ValueError, match="51 tokens and the language model 50"):
        build_language_model(LlamaLanguageConfig(pretrained=llama), 51)


def test_configurations_say_where_the_weights_come_from():
    adapter: TypeAdapter[LanguageModelConfig] = TypeAdapter(LanguageModelConfig)
    assert adapter.validate_python({"kind": "llama"}).pretrained == "TinyLlama/TinyLlama_v1.1"
    assert adapter.validate_python({"kind": "qwen2"}).pretrained == "Qwen/Qwen2.5-0.5B"
    assert adapter.validate_python({"kind": "hrm_text"}).pretrained == "sapientinc/HRM-Text-1B"
    assert adapter.validate_python({"kind": "hrm_act_v1"}).hidden == 512
    for config in CONFIGS.values():
        assert adapter.validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="set pretrained to null"):
        adapter.validate_python({"kind": "llama", "sizes": {"hidden": 64}})
    with pytest.raises(ValidationError, match="name a pretrained model"):
        adapter.validate_python({"kind": "hrm_text", "pretrained": None})
    with pytest.raises(ValidationError, match="multiple of kv_heads"):
        LlamaSizes(heads=32, kv_heads=5)
    with pytest.raises(ValidationError, match="multiple of twice the heads"):
        HrmActV1Config(hidden=500)


SMOLLM2 = LlamaSizes(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536, positions=8192, tied=True)


@pytest.mark.parametrize(
    ("config", "vocabulary", "architecture", "parameters"),
    [
        (LlamaLanguageConfig(pretrained=None, sizes=LlamaSizes()), 32_000, LlamaForCausalLM, 1_100_048_384),
        (LlamaLanguageConfig(pretrained=None, sizes=SMOLLM2), 49_152, LlamaForCausalLM, 134_515_008),
        (Qwen2LanguageConfig(pretrained=None, sizes=Qwen2Sizes()), 151_936, Qwen2ForCausalLM, 494_032_768),
    ],
    ids=["TinyLlama", "SmolLM2", "Qwen2.5"],
)
def test_sizes_give_the_published_models(config, vocabulary, architecture, parameters):
    with torch.device("meta"):
        lm = build_language_model(config, vocabulary)
    assert isinstance(lm.hf, architecture)
    assert sum(p.numel() for p in lm.parameters()) == parameters


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_output_layer_is_the_embedding_table(tied):
    for config in (LLAMA, QWEN2):
        sizes = config.sizes.model_copy(update={"tied": tied})
        lm = build_language_model(config.model_copy(update={"sizes": sizes}), VOCABULARY)
        assert (lm.heads[0].weight is lm.embedding_table) == tied


def test_a_tied_model_is_the_only_one_whose_key_says_so():
    assert "tied" not in config_in_key(LLAMA)["sizes"]
    assert config_in_key(LLAMA.model_copy(update={"sizes": SMOLLM2}))["sizes"]["tied"] is True


def test_qwen2_has_biases_where_it_looks_and_turns_slowly():
    lm = build_language_model(QWEN2, VOCABULARY)
    assert {name.split(".")[-2] for name, _ in lm.named_parameters() if name.endswith("bias")} == {
        "q_proj", "k_proj", "v_proj",
    }  # fmt: skip
    assert lm.hf.config.rope_parameters["rope_theta"] == 1e6
    expected = 1e6 ** -(torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(lm.hf.model.rotary_emb.inv_freq, expected)


def test_layers_that_see_a_window_alone_are_left_to_the_library():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    windows = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
    hf = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=2, **sizes, **windows)).eval()
    lm = Windowed(hf)
    ids = torch.randint(VOCABULARY, (2, 12))
    found = lm(lm.embed_tokens(ids), torch.ones(2, 12, dtype=torch.long))
    torch.testing.assert_close(found, hf(ids).logits)


class Windowed(TransformersLM):
    """Says of itself what `Qwen2` says."""

    WHOLLY_CAUSAL = True
