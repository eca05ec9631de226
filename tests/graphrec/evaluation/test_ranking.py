import math

import pytest
import torch
from cases.graphs import histories_of, planted_graph
from cases.scoring_models import FixedScores

from graphrec.errors import ArgumentError
from graphrec.evaluation import rank_all, ranking, top_k
from graphrec.evaluation.ranking import default_batch_size
from graphrec.histories import Histories


def joined(batches):
    rows, items, scores = zip(*batches, strict=True)
    return torch.cat(rows), torch.cat(items), torch.cat(scores)


@pytest.mark.parametrize("batch_size", [None, 1, 7, 120, 1000])
def test_all_users_are_ranked_once_whatever_the_batch(batch_size):
    graph = planted_graph()
    past = histories_of(graph)
    model = FixedScores.from_graph(graph)
    model.table = model.table.round()  # many ties
    rows, items, scores = joined(rank_all(model, past, 6, past, seed=2, batch_size=batch_size))
    assert rows.tolist() == list(range(graph.num_users))
    expected = top_k(model.table, 6, past, seed=2)
    assert torch.equal(items, expected[0])
    assert torch.equal(scores, expected[1])
    assert max(model.batch_sizes) == min(batch_size or graph.num_users, graph.num_users)


def test_only_the_rows_asked_for_in_their_order():
    graph = planted_graph()
    past = histories_of(graph)
    model = FixedScores.from_graph(graph)
    rows = torch.tensor([50, 3, 119])
    got, items, _ = joined(rank_all(model, past, 4, past, rows=rows, batch_size=2))
    assert torch.equal(got, rows)
    assert torch.equal(items, top_k(model.table, 4, past)[0][rows])


def test_nothing_is_left_out_without_seen():
    graph = planted_graph()
    model = FixedScores.from_graph(graph)
    _, items, _ = joined(rank_all(model, histories_of(graph), graph.num_items, None))
    assert (items.sort(dim=1).values == torch.arange(graph.num_items)).all()


@pytest.mark.parametrize("batch_size", [3, 400])
def test_strangers_with_equal_scores_get_lists_of_their_own(batch_size):
    strangers = Histories.from_lists([[1]] * 400)
    model = FixedScores(torch.zeros(1, 30))
    _, items, _ = joined(rank_all(model, strangers, 3, strangers, batch_size=batch_size))
    assert not (items == 1).any()
    counts = torch.bincount(items.flatten(), minlength=30)
    assert counts[1] == 0
    assert (counts[torch.arange(30) != 1] > 10).all()  # about 41 each
    assert torch.equal(items, joined(rank_all(model, strangers, 3, strangers))[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_evaluated_without_gradients_and_keeps_its_mode_and_cache(training):
    graph = planted_graph()
    past = histories_of(graph)
    model = FixedScores.from_graph(graph).train(training)
    model._cache["kept"] = 1
    for _ in rank_all(model, past, 2, past, batch_size=50):
        assert torch.is_grad_enabled()  # the caller's own mode is left alone between batches
    assert model.training is training
    assert not any(model.modes)
    assert ("kept" in model._cache) is not training


def test_no_users_no_batches():
    none = Histories.from_lists([])
    assert list(rank_all(FixedScores(torch.zeros(2, 3)), none, 2, none)) == []


def test_nan_names_the_model_and_the_user():
    table = torch.zeros(5, 9)
    table[3, 4] = math.nan
    past = Histories.from_lists([[0]] * 5, range(5))
    with pytest.raises(ArgumentError, match="FixedScores scores NaN for user 3"):
        list(rank_all(FixedScores(table), past, 2, past, batch_size=2))


def test_wrong_scores_and_arguments_are_named():
    past = Histories.from_lists([[0]] * 5, range(5))
    model = FixedScores(torch.zeros(5, 9))
    model.num_items = 8
    with pytest.raises(
        ArgumentError, match=r"FixedScores.score must return float \[5, 8\], got torch.float32 \[5, 9\]"
    ):
        list(rank_all(model, past, 2, past))
    model = FixedScores(torch.zeros(5, 9, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="must return float"):
        list(rank_all(model, past, 2, past))
    model = FixedScores(torch.zeros(5, 9))
    with pytest.raises(ArgumentError, match="k must be >= 1"):
        list(rank_all(model, past, 0, past))
    with pytest.raises(ArgumentError, match="batch_size must be >= 1"):
        list(rank_all(model, past, 1, past, batch_size=0))
    with pytest.raises(ArgumentError, match="seen must have 5 rows like histories, got 2"):
        list(rank_all(model, past, 1, past.select(torch.tensor([0, 1]))))


def test_batches_fit_their_memory():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_batch_size(30_040, cpu) == 139  # 16 MiB of float32
    assert default_batch_size(30_040, cpu, shares_work=True) == 558
    assert default_batch_size(30_040, gpu) == default_batch_size(30_040, gpu, shares_work=True) == 1024
    assert default_batch_size(1_000, cpu) == 1024
    assert default_batch_size(1_000_000, cpu) == 64
    assert default_batch_size(50_000_000, cpu) == 1
    assert default_batch_size(500_000_000, gpu) == 1
    assert 4 * 1_000_000 * default_batch_size(1_000_000, cpu) <= 256 * 2**20


def test_a_model_whose_histories_share_work_scores_more_at_once(monkeypatch):
    monkeypatch.setattr(ranking, "CPU_BLOCK_BYTES", 4 * 9 * 2)
    monkeypatch.setattr(ranking, "SHARED_BLOCK_BYTES", 4 * 9 * 5)
    monkeypatch.setattr(ranking, "FEWEST_ROWS", 1)
    past = Histories.from_lists([[0]] * 6, range(6))
    model = FixedScores(torch.zeros(6, 9))
    for shares_work, sizes in ((False, [2, 2, 2]), (True, [5, 1])):
        model.shares_work = shares_work
        assert [len(rows) for rows, _, _ in ranking.score_batches(model, past, None, None)] == sizes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_a_gpu_gives_the_same_lists_on_the_cpu():
    graph = planted_graph()
    past = histories_of(graph)
    here = joined(rank_all(FixedScores.from_graph(graph), past, 5, past))
    there = joined(rank_all(FixedScores.from_graph(graph).cuda(), past, 5, past))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
