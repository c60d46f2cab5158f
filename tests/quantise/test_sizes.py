"""What parts of a model weigh."""

from __future__ import annotations

import pytest
from torch import nn

from tasks.quantise.sizes import parameter_counts, size_rows
from tests.quantise.tiny import decoder


def test_parts_add_up_and_tied_parameters_count_once(tmp_path):
    model = decoder("llama")
    (tmp_path / "layers.bin").write_bytes(b"x" * 123)
    files = {"model.layers": tmp_path / "layers.bin"}
    rows = {row.part: row for row in size_rows(parameter_counts(model), ["model.embed_tokens", "model.layers"], files)}
    assert [*rows] == ["model.embed_tokens", "model.layers", "rest", "total"]
    assert rows["model.embed_tokens"].parameters == 97 * 48
    assert rows["rest"].parameters == 48  # the last norm; the head is tied
    assert rows["total"].parameters == sum(parameter.numel() for parameter in model.parameters())
    assert sum(row.parameters for row in rows.values()) == 2 * rows["total"].parameters
    assert (rows["model.layers"].measured, rows["total"].measured) == (123, None)


def test_bytes_are_those_of_the_bits():
    row, total = size_rows({"a.weight": 11}, ["a"])
    assert row.bytes_at == {32: 44, 16: 22, 8: 11, 4: 6, 2: 3, 1.6: 3}
    assert total.bytes_at == row.bytes_at


def test_a_nested_part_takes_its_parameters():
    model = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2), "c": nn.Linear(3, 3)})})
    counts = {row.part: row.parameters for row in size_rows(parameter_counts(model), ["a", "a.b"])}
    assert counts == {"a": 12, "a.b": 6, "total": 18}


def test_unknown_parts_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no parameters in b"):
        size_rows({"a.weight": 1}, ["b"])
    with pytest.raises(ValueError, match="a file of b, which is no part; parts are a, total"):
        size_rows({"a.weight": 1}, ["a"], {"b": tmp_path})
