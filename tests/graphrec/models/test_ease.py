import subprocess
import sys
import textwrap
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import ClosedFormCase, recall, relaxed, watch_large_tensors

from graphrec.errors import ArgumentError, NotFittedError
from graphrec.histories import Histories
from graphrec.models import EASE, DualEASE, ease


class TestEASE(ClosedFormCase):
    model_class = EASE
    options: ClassVar = {"l2": 5.0}


def written_out(histories: Histories, num_items: int) -> np.ndarray:
    x = np.zeros((len(histories), num_items))
    x[histories.rows, histories.items] = 1
    return x


def naive(histories: Histories, num_items: int, l2: float) -> np.ndarray:
    """Steck (2019), eq. 8, word by word in float64."""
    x = written_out(histories, num_items)
    p = np.linalg.inv(x.T @ x + l2 * np.eye(num_items))
    return np.eye(num_items) - p @ np.diag(1 / np.diag(p))


@pytest.mark.parametrize(("dropout", "relax"), [(0.5, 0.0), (0.0, 0.4), (0.3, 0.2), (0.3, 1.0)])
def test_edlae_and_rlae_equal_their_papers_in_float64(dropout, relax):
    graph = planted_graph()
    histories = histories_of(graph)
    model = EASE(graph.num_items, 5.0, dropout, relax)
    model.fit(histories)
    expected = relaxed(written_out(histories, graph.num_items), 5.0, dropout, relax)
    np.testing.assert_allclose(model.weight.numpy(), expected, rtol=1e-3, atol=1e-5)
    assert not np.allclose(expected, naive(histories, graph.num_items, 5.0), atol=1e-2)


def test_a_relaxed_diagonal_lets_rare_items_stand_higher():
    """Item 2 is taken with item 0 each time that it is taken, item 1 as often with it as without."""
    rows = [[0, 1, 2], [0, 1, 2], *[[0, 1]] * 20, *[[1]] * 20]
    strict, loose = EASE(3, 10.0), EASE(3, 10.0, relax=0.6)
    for model in (strict, loose):
        model.fit(Histories.from_lists(rows))
    assert loose.weight[0, 2] / loose.weight[0, 1] > 1.5 * strict.weight[0, 2] / strict.weight[0, 1] > 0


@pytest.mark.parametrize("wrong", [{"input_dropout": 1.0}, {"input_dropout": -0.1}, {"relax": 1.5}])
@pytest.mark.parametrize("kind", [EASE, DualEASE])
def test_shares_outside_their_range(kind, wrong):
    with pytest.raises(
        ArgumentError, match=f"{next(iter(wrong))} must be within 0.0..*, got {next(iter(wrong.values()))}"
    ):
        kind(3, 1.0, **wrong)


@pytest.mark.parametrize("block_rows", [1, 7, 80, 1024])
@pytest.mark.parametrize("l2", [0.5, 10.0, 2000.0])
def test_equals_the_naive_inverse_in_float64(l2, block_rows, monkeypatch):
    monkeypatch.setattr("graphrec.models.inversion.BLOCK_ROWS", block_rows)
    monkeypatch.setattr("graphrec.models.ease.BLOCK_ROWS", block_rows)
    graph = planted_graph()
    histories = histories_of(graph)
    model = EASE(graph.num_items, l2=l2)
    model.fit(histories)
    expected = naive(histories, graph.num_items, l2)
    np.testing.assert_allclose(model.weight.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert not model.weight.diagonal().any()
    x = np.zeros((len(histories), graph.num_items))
    x[histories.rows, histories.items] = 1
    np.testing.assert_allclose(model.score(histories).numpy(), x @ expected, rtol=1e-4, atol=1e-5)


def test_float32_is_exact_enough_for_a_thousand_items_and_a_small_l2():
    generator = torch.Generator().manual_seed(0)
    num_items = 1003
    # Popularity falls as in real data, so the matrix is as badly conditioned.
    wanted = (torch.arange(num_items) + 1.0).pow(-0.8)
    lists = [torch.multinomial(wanted, 40, generator=generator).tolist() for _ in range(900)]
    histories = Histories.from_lists(lists)
    model = EASE(num_items, l2=1.0)
    model.fit(histories)
    np.testing.assert_allclose(model.weight.numpy(), naive(histories, num_items, 1.0), atol=1e-4)


def test_l2_is_chosen_on_validation():
    graph = planted_graph()
    histories = histories_of(graph)
    model = EASE(graph.num_items, l2=[1e-3, 20.0, 1e6])
    tried = []

    def validate() -> float:
        tried.append(model.chosen_l2)
        # What is validated is the model of this very value.
        fresh = EASE(graph.num_items, l2=model.chosen_l2)
        fresh.fit(histories)
        assert torch.equal(model.score(histories), fresh.score(histories))
        return recall(model.score(histories), graph)

    values = {}
    for l2 in model.l2:
        single = EASE(graph.num_items, l2=l2)
        single.fit(histories)
        values[l2] = recall(single.score(histories), graph)
    best = max(values, key=values.__getitem__)
    assert model.eval().fit(histories, validate) == {"l2": best}
    assert tried == [1e-3, 20.0, 1e6]
    single = EASE(graph.num_items, l2=best)
    single.fit(histories)
    assert torch.equal(model.weight, single.weight)


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_chosen_value_is_used_by_the_next_fit(best):
    graph = planted_graph()
    histories = histories_of(graph)
    grid = [1.0, 30.0, 900.0]
    model = EASE(graph.num_items, l2=grid)
    assert model.fit(histories, lambda: float(model.chosen_l2 == grid[best])) == {"l2": grid[best]}
    fewer = histories.select(torch.arange(50))
    assert model.fit(fewer) == {}
    single = EASE(graph.num_items, l2=grid[best])
    single.fit(fewer)
    assert torch.equal(model.weight, single.weight)


def test_without_validation_the_middle_value_is_used():
    assert EASE(num_items=3).chosen_l2 == 200.0
    assert EASE(num_items=3, l2=7).chosen_l2 == 7.0


def test_one_matrix_is_held_at_a_time(monkeypatch):
    living = watch_large_tensors(monkeypatch, ease, "square_matrix")
    graph = planted_graph()
    model = EASE(graph.num_items, l2=[1.0, 2.0, 3.0, 4.0])
    model.fit(histories_of(graph), lambda: -model.chosen_l2)
    assert living == [0]  # one for all values
    model.fit(histories_of(graph))
    assert living == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="the heap that keeps what is freed is glibc's")
def test_fitting_again_takes_no_more_memory_where_the_heap_keeps_what_is_freed():
    program = textwrap.dedent("""
        from graphrec.process import settle_process
        settle_process()
        import torch
        from graphrec.experiment.runner import peak_memory_mb
        from graphrec.histories import Histories
        from graphrec.models import EASE, inversion

        inversion.BLOCK_ROWS = 64
        num_items = 2500  # a matrix of 25 MB
        histories = Histories.from_lists([[item, item * 7 % num_items] for item in range(num_items)])
        model = EASE(num_items, l2=10.0)
        model.fit(histories)
        # Small blocks that stay, as the moments of an optimiser do: they move into what the inversion left.
        kept = [torch.ones(1000) for _ in range(10_000)]
        before = peak_memory_mb()
        model.fit(histories)
        print(peak_memory_mb() - before)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 12


def test_loading_takes_the_matrix_over():
    model, loaded = EASE(num_items=3, l2=1.0), EASE(num_items=3)
    model.fit(Histories.from_lists([[0, 1], [2]]))
    state = model.state_dict()
    loaded.load_state_dict(state)
    assert loaded.weight.data_ptr() == state["weight"].data_ptr()
    # Fitting again makes a matrix of its own.
    before = loaded.weight.clone()
    model.fit(Histories.from_lists([[0, 2]]))
    assert torch.equal(loaded.weight, before)


@pytest.mark.parametrize("l2", [0.0, -1.0, [], [1.0, 0.0], float("nan"), float("inf")])
def test_l2_must_be_above_zero(l2):
    with pytest.raises(ArgumentError, match="l2 must be a number above 0 or several of them, got"):
        EASE(num_items=3, l2=l2)


def test_an_l2_too_small_for_float32_is_named():
    histories = Histories.from_lists([[0, 1, 2], [0, 1, 2]])
    model = EASE(num_items=3, l2=[1.0, 1e-30])
    with pytest.raises(ArgumentError, match=r"l2 must be larger for these data, got 1e-30"):
        model.fit(histories, lambda: 0.0)
    with pytest.raises(NotFittedError):  # rather than scores of a half-made matrix
        model.score(histories)
