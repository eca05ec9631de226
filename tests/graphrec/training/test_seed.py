import hashlib

import pytest
import torch

from graphrec.training.seed import derive_seed, deterministic, seed_global

CPU = torch.device("cpu")


def test_the_hash_is_the_documented_one():
    digest = hashlib.sha256(b"5/select/3/7").hexdigest()
    assert derive_seed(5, "select", 3, 7) == int(digest[:16], 16) // 2


def test_positions_get_different_seeds_that_fit_int64():
    seeds = {
        derive_seed(seed, phase, epoch, step)
        for seed in range(3)
        for phase in ("select", "refit")
        for epoch in range(12)
        for step in range(12)
    }
    assert len(seeds) == 3 * 2 * 12 * 12
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_global_is_manual_seed():
    torch.manual_seed(11)
    expected = torch.rand(4)
    seed_global(11, CPU)
    assert torch.equal(torch.rand(4), expected)


def test_deterministic_refuses_what_has_no_deterministic_form_and_undoes_itself():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    filling = torch.utils.deterministic.fill_uninitialized_memory
    with deterministic(CPU, num_threads=2):
        assert torch.get_num_threads() == 2
        assert not torch.utils.deterministic.fill_uninitialized_memory
        torch.manual_seed(99)
        with pytest.raises(RuntimeError, match="deterministic"):
            torch.zeros(5).put_(torch.tensor([0, 0]), torch.ones(2))
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == filling
    assert torch.equal(torch.rand(3), expected)


def test_deterministic_undoes_itself_after_an_error():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(KeyError), deterministic(CPU):
            raise KeyError
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_graph_attention_needs_runs_deterministically_on_the_cpu():
    index, x = torch.tensor([3, 1, 3, 0]), torch.randn(5, 4, requires_grad=True)
    with deterministic(CPU):
        (
            torch.nn.functional.embedding(index, x).sum()
            + torch.zeros(5, 4).index_add(0, index, x[index]).pow(2).sum()
            + torch.zeros(5).scatter_reduce(0, index, x[index, 0], "amax").sum()
            + torch.sparse.mm(torch.eye(5).to_sparse_coo(), x).sum()
        ).backward()
    assert torch.isfinite(x.grad).all()
