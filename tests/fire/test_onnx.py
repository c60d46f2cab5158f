"""Features of an EmberFormer by ONNX Runtime are those of torch, for any length of history and any grid."""

from __future__ import annotations

import onnx
import pytest
import torch

from configs.fire_models import EmberFormerConfig
from configs.wildfire import FireInputs
from models.fire.build import build_fire_model
from tasks.fire.dataset import collate
from tasks.fire.onnx import VARIABLE, FeatureGraph, OnnxEmberFormer, inputs_of
from tasks.fire.released import open_part
from tasks.quantise.onnx_file import quantise_onnx, write_float_onnx

pytestmark = pytest.mark.long
MODEL = {"d_model": 16, "nhead": 2, "num_layers": 1, "edge_weight": 0.1, "max_history": 4,
         "spatial_layers": 1, "head": "front"}  # fmt: skip
DECODER = {"kind": "unet", "widths": [8, 12], "depth": 1, "features": 6}


@pytest.fixture(scope="module")
def exported(fires, tmp_path_factory):
    """A network, its file in floats, the same in 8 bits, and all training samples."""
    cache, split = fires
    samples = open_part(cache, split, "train", FireInputs(history=4))
    torch.manual_seed(0)
    config = EmberFormerConfig.model_validate(MODEL | {"decoder": DECODER})
    network = build_fire_model(config, samples.spec).eval()
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    every = [samples.sample(k, 0) for k in range(len(samples))]
    largest = max(every, key=lambda sample: (len(sample.fire), sample.grid[0] * sample.grid[1]))
    folder = tmp_path_factory.mktemp("onnx")
    plain, small = folder / "float.onnx", folder / "int8.onnx"
    write_float_onnx(plain, FeatureGraph(network).eval(), inputs_of(collate([largest])), ["features"], VARIABLE)
    quantise_onnx(plain, small, (inputs_of(collate([sample])) for sample in every[::5]))
    return network, plain, small, every


def test_every_sample_has_the_logits_of_torch(exported):
    network, plain, _, samples = exported
    computed = OnnxEmberFormer(network, plain)
    assert {len(sample.fire) for sample in samples} >= {1, 4}
    with torch.no_grad():
        for batch in [*(collate([sample]) for sample in samples), collate(samples[:3])]:
            expected, found = network(batch), computed(batch)
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.auxiliary["edge"], expected.auxiliary["edge"], rtol=1e-4, atol=1e-4)


def test_8_bits_are_nearly_the_same(exported):
    network, plain, small, samples = exported
    exact, found = OnnxEmberFormer(network, plain), OnnxEmberFormer(network, small)
    with torch.no_grad():
        batches = [collate([sample]) for sample in samples[::4]]
        logits = [(exact(batch).logits, found(batch).logits) for batch in batches]
    error = sum(float((a - b).square().sum()) for a, b in logits) / sum(float(a.square().sum()) for a, _ in logits)
    assert error < 0.01
    kept = {weight.data_type for weight in onnx.load(small).graph.initializer if len(weight.dims) == 4}
    assert kept == {onnx.TensorProto.INT8}, "weights of convolutions"


def test_what_is_no_file_of_onnx_is_refused(exported, tmp_path):
    network, *_, samples = exported
    (tmp_path / "model.onnx").write_bytes(b"none")
    with pytest.raises(ValueError, match="cannot be read as an ONNX model"):
        OnnxEmberFormer(network, tmp_path / "model.onnx")(collate(samples[:1]))
