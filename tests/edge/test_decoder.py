"""llama.cpp computes of an exported decoder what torch computes of the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.quantise.edge_process import edge_logits
from tasks.quantise.gguf_file import write_gguf
from tests.edge.conftest import ternary_qwen2

IDS = np.random.default_rng(1).integers(0, 300, (2, 24))


@pytest.fixture(scope="module", params=[(224, 14), (256, 8)], ids=["padded", "whole"])
def exported(request, edge, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    model, decoder = ternary_qwen2(*request.param, scale=2**-4)
    write_gguf(path, decoder)
    return path, model


def test_its_logits_are_those_of_torch_but_for_rounded_activations(exported):
    path, model = exported
    found = torch.from_numpy(edge_logits(path, ids=IDS))
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS)).logits
    agreement = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    divergence = torch.nn.functional.kl_div(
        found.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="none"
    )
    assert agreement > 0.9
    assert divergence.sum(-1).mean() < 0.01
    assert expected.softmax(-1).amax(-1).mean() > 10 / 300, "flat predictions would agree about nothing"


def test_embeddings_in_place_of_ids_give_the_same_logits(exported):
    path, model = exported
    vectors = model.get_input_embeddings()(torch.from_numpy(IDS)).detach().numpy()
    expected = edge_logits(path, ids=IDS)
    np.testing.assert_allclose(edge_logits(path, vectors=vectors), expected, atol=1e-4)
    np.testing.assert_allclose(edge_logits(path, vectors=vectors[:, :9], ids=IDS[:, 9:]), expected, atol=1e-4)


def test_a_damaged_file_is_refused(exported, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(exported[0].read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"llama\.cpp cannot read .*model\.gguf; it is damaged"):
        edge_logits(path, ids=IDS)


def test_a_token_that_the_decoder_does_not_have_is_refused(exported):
    with pytest.raises(RuntimeError, match="token 300 is none of the decoder's 300"):
        edge_logits(exported[0], ids=np.array([[300]]))
