"""Embeddings are read from the file of the decoder as llama.cpp reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.edge.rows import EmbeddingRows
from tasks.quantise.decoder import Codes
from tasks.quantise.gguf_file import embeddings_in, write_gguf
from tests.edge.conftest import VOCABULARY, ternary_qwen2

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 128), (4, -8, 8), (1.58, -1, 2)])
@pytest.mark.parametrize("ternary", ["TQ1_0", "TQ2_0"])
def test_rows_of_integers(tmp_path, bits, low, high, ternary):
    _, decoder = ternary_qwen2(224, 14, 2**-4)
    scales = RNG.uniform(0.01, 0.02, (VOCABULARY, 7 if bits == 4 else 1)).astype(np.float16).astype(np.float32)
    table = Codes(RNG.integers(low, high, (VOCABULARY, 224), np.int8), scales, bits)
    decoder.weights["model.embed_tokens.weight"] = table
    write_gguf(tmp_path / "model.gguf", decoder, ternary=ternary)
    rows = EmbeddingRows(tmp_path / "model.gguf", *embeddings_in(tmp_path / "model.gguf"), VOCABULARY, 256)
    found = rows([5, 0, 299, 5])
    np.testing.assert_array_equal(found[:, :224], table.values()[[5, 0, 299, 5]])
    assert not found[:, 224:].any()
