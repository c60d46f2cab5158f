"""Loading of pretrained decoders from folders in the layout of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerModel,
)

from configs.fire_models import (
    Decoder,
    EmberFormerConfig,
    SamDecoderConfig,
    SegformerDecoderConfig,
    UnetResnetDecoderConfig,
)
from models.fire.build import build_fire_model, parameter_groups
from models.fire.emberformer import EmberFormer
from tests.fire.fire_batches import SPEC, pad, random_batch


def build(decoder: Decoder) -> EmberFormer:
    torch.manual_seed(5)
    model = build_fire_model(EmberFormerConfig(d_model=16, nhead=2, num_layers=1, decoder=decoder), SPEC).eval()
    assert isinstance(model, EmberFormer)
    return model


def check_use(model: EmberFormer) -> None:
    """Padding changes nothing with pretrained norms either, and training leaves their statistics alone."""
    batch = random_batch()
    before = {key: value.clone() for key, value in model.named_buffers()}
    with torch.no_grad():
        logits = model(batch).logits
        again = model(pad(batch, 2, 3, 1)).logits[:, : logits.shape[1], : logits.shape[2]]
        model.train()(batch)
    assert (logits - again).abs().max() < 1e-5
    assert all(torch.equal(before[key], value) for key, value in model.named_buffers())
    grouped = [id(p) for group in parameter_groups(model).values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.fixture
def segformer(tmp_path: Path) -> SegformerForSemanticSegmentation:
    config = SegformerConfig(
        hidden_sizes=[8, 8, 12, 12],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
        num_labels=3,
    )
    model = SegformerForSemanticSegmentation(config)
    torch.nn.init.uniform_(model.decode_head.batch_norm.running_mean)
    model.save_pretrained(tmp_path / "segformer")
    return model


def test_segformer_brings_its_decode_head(segformer: SegformerForSemanticSegmentation, tmp_path: Path) -> None:
    model = build(SegformerDecoderConfig(pretrained=str(tmp_path / "segformer")))
    ours, theirs = model.decoder.decode, segformer.decode_head
    assert torch.equal(ours.linear_fuse.weight, theirs.linear_fuse.weight)
    assert torch.equal(ours.batch_norm.mean, theirs.batch_norm.running_mean)
    assert not any("classifier" in name or "encoder" in name for name, _ in model.decoder.named_parameters())
    spatial = parameter_groups(model)["spatial"]
    assert {id(p) for p in spatial} == {id(p) for p in ours.parameters()}
    check_use(model)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet_brings_its_encoder_and_an_adapted_stem(kind: str, tmp_path: Path) -> None:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 2, 1, 1], layer_type=kind, num_labels=4
    )
    theirs = ResNetForImageClassification(config)
    theirs.save_pretrained(tmp_path / "resnet")
    model = build(UnetResnetDecoderConfig(pretrained=str(tmp_path / "resnet"), widths=(8, 8, 8, 8)))
    decoder = model.decoder
    for name, weight in theirs.resnet.encoder.named_parameters():
        assert torch.equal(decoder.encoder.get_parameter(name), weight)
    colours = theirs.resnet.embedder.embedder.convolution.weight
    assert torch.allclose(decoder.stem.convolution.weight.sum(1), colours.sum(1), atol=1e-5)
    groups = parameter_groups(model)
    assert {id(p) for p in decoder.encoder.parameters()} <= {id(p) for p in groups["spatial"]}
    assert any(p is decoder.stem.convolution.weight for p in groups["temporal"])
    check_use(model)


def test_sam_brings_mask_decoder_mask_prompt_and_positions(tmp_path: Path) -> None:
    size = {"hidden_size": 32}
    sam = SamModel(
        SamConfig(
            vision_config=SamVisionConfig(
                hidden_size=16, output_channels=32, num_hidden_layers=1, num_attention_heads=2, num_pos_feats=16
            ),
            prompt_encoder_config=SamPromptEncoderConfig(**size),
            mask_decoder_config=SamMaskDecoderConfig(**size, mlp_dim=48, iou_head_hidden_dim=32),
        )
    )
    sam.save_pretrained(tmp_path / "sam")
    model = build(SamDecoderConfig(pretrained=str(tmp_path / "sam")))
    ours = model.decoder
    assert torch.equal(ours.mask_decoder.mask_tokens.weight, sam.mask_decoder.mask_tokens.weight[:1])
    assert torch.equal(ours.mask_decoder.upscale_conv2.weight, sam.mask_decoder.upscale_conv2.weight)
    assert torch.equal(ours.prompt.conv3.weight, sam.prompt_encoder.mask_embed.conv3.weight)
    assert torch.equal(ours.frequencies, sam.shared_image_embedding.positional_embedding)
    check_use(model)


def test_weights_that_cannot_be_loaded_end_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (str(tmp_path / "nowhere"), "nobody/no-such-model"):
        with pytest.raises(ValueError, match="cannot be loaded"):
            build(SegformerDecoderConfig(pretrained=source))
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])).save_pretrained(tmp_path / "r")
    with pytest.raises(ValueError, match="is a resnet model"):
        build(SegformerDecoderConfig(pretrained=str(tmp_path / "r")))
    with pytest.raises(ValueError, match="no plain ResNet"):
        build(UnetResnetDecoderConfig(pretrained=str(tmp_path / "r")))
    config = SegformerConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1])
    SegformerModel(config).save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match="lacks decode_head"):
        build(SegformerDecoderConfig(pretrained=str(tmp_path / "headless")))
