"""The stage that makes a pretrained language model smaller before anything is trained on it."""

from __future__ import annotations

from typing import Any

from configs.language import LanguageModelConfig
from configs.microvlm import Phrases, PrunedLanguage
from storage.assets import Asset
from storage.image_texts import read_texts
from tasks.stage import Job, StageResult, stage
from tasks.text.tokens import FOLDER


@stage("microvlm_language_pruned")
def language_pruning(
    job: Job,
    *,
    shards: Asset,
    index: Asset,
    language: LanguageModelConfig,
    tokenizer: str,
    phrases: Phrases,
    recipe: PrunedLanguage,
) -> StageResult:
    """Leave of a language model the tokens that training texts and phrases use most, and the layers that are kept."""
    from models.language.build import build_language_model
    from models.language.transformers_lm import TransformersLM
    from tasks.quantise.vocabulary import prune_embedding, prune_vocabulary
    from tasks.text.tokens import Tokens
    from tasks.training.release import WEIGHTS, write_config, write_weights
    from tasks.vision_language.language_released import CaptionLanguageRelease, pruned_language_config

    tokens = Tokens.load(tokenizer)
    network = build_language_model(language, len(tokens))
    if not isinstance(network, TransformersLM):
        raise ValueError(f"a {type(network).__name__} cannot be pruned; choose a decoder of transformers")
    before = sum(p.numel() for p in network.parameters())
    if recipe.vocabulary is not None:
        told = [text for pair in read_texts(shards.folder, index.folder, "train") for text in pair if text]
        corpus = [phrases.describe, phrases.previous, *phrases.recall, *(f" {text}" for text in told)]
        tokens, kept = prune_vocabulary(tokens, corpus, recipe.vocabulary)
        head = network.hf.get_output_embeddings()
        prune_embedding(network.hf.get_input_embeddings(), head, kept)
        marks = {"bos_token_id": tokens.begin, "eos_token_id": tokens.end, "pad_token_id": None}
        network.hf.config.update({"vocab_size": len(kept), **marks})
    if recipe.layers is not None:
        _keep_layers(network.hf, recipe.layers)
    write_weights(job.folder / WEIGHTS, network, lambda name: True)
    write_config(job.folder, CaptionLanguageRelease, pruned_language_config(network), {}, [])
    tokens.tokenizer.save_pretrained(str(job.folder / FOLDER))
    after = sum(p.numel() for p in network.parameters())
    return StageResult(
        counts={"vocabulary": len(tokens), "parameters": after}, metrics={"parameters_left": after / before}
    )


def _keep_layers(hf: Any, keep: tuple[int, ...]) -> None:
    from tasks.quantise.layers import prune_layers

    decoder = hf.base_model
    if not hasattr(decoder, "layers"):
        raise ValueError(f"the layers of a {type(hf).__name__} have another name; only Llama-like decoders are pruned")
    decoder.layers = prune_layers(decoder.layers, keep)
    kinds = getattr(hf.config, "layer_types", None)
    left = {"layer_types": [kinds[k] for k in keep]} if kinds else {}
    hf.config.update({"num_hidden_layers": len(keep), **left})
