from __future__ import annotations

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.models.block_triangle import BlockTriangle
from graphrec.models.inversion import sweep_


def positive_definite(size):
    root = torch.randn(size, size + 3, generator=torch.Generator().manual_seed(0))
    return root @ root.T + torch.eye(size)


def triangle_of(whole):
    held = BlockTriangle(torch.empty(BlockTriangle.numel(len(whole))), len(whole))
    for rows, block in held.blocks:
        block.copy_(whole[rows, : rows.stop])
    return held


@pytest.fixture(params=[1, 4, 5, 12, 1024], autouse=True)
def block_rows(request, monkeypatch):
    monkeypatch.setattr("graphrec.models.inversion.BLOCK_ROWS", request.param)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_rows_and_products_are_those_of_the_whole_matrix(size):
    whole = positive_definite(size)
    held = triangle_of(whole)
    index = torch.tensor([size - 1, 0, size // 2, 0])
    assert torch.equal(held.rows(index), whole[index])
    assert held.rows(index[:0]).shape == (0, size)
    left = torch.randn(3, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(held.product(left), left @ whole)


def test_a_large_matrix_takes_half_of_the_memory(monkeypatch):
    monkeypatch.setattr("graphrec.models.inversion.BLOCK_ROWS", 1024)
    assert BlockTriangle.numel(23_566) < 0.53 * 23_566**2


@pytest.mark.parametrize("size", [1, 5, 12])
def test_a_swept_triangle_is_that_of_the_negative_inverse(size):
    whole = positive_definite(size)
    held = triangle_of(whole)
    sweep_([block for _, block in held.blocks], l2=1.0)
    torch.testing.assert_close(held.product(torch.eye(size)), -whole.inverse(), rtol=1e-3, atol=1e-4)


def test_a_matrix_that_is_not_positive_definite_is_refused():
    held = triangle_of(torch.ones(5, 5))
    with pytest.raises(ArgumentError, match="l2 must be larger for these data, got 1"):
        sweep_([block for _, block in held.blocks], l2=1.0)
