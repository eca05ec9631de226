import math
from dataclasses import replace

import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.errors import ArgumentError
from graphrec.evaluation import product
from graphrec.evaluation.product import BLOCK_SCORES, FEW_SCORES, ProductSearch
from graphrec.evaluation.topk import top_k
from graphrec.histories import Histories
from graphrec.layers.ops.compiled.build import library
from graphrec.models import BPRMF, EASE, InductiveKGAT

NUM_ITEMS, NUM_USERS, DIM = 6007, 64, 9  # several blocks, the last one not full
assert NUM_ITEMS * NUM_USERS > BLOCK_SCORES > FEW_SCORES


@pytest.fixture(params=["packed", "as floats"], autouse=True)
def looked_at(request, monkeypatch):
    """Whether the first look is at packed items, for any number of users, or at floats."""
    if request.param == "packed" and library() is None:
        pytest.skip("no compiler")
    monkeypatch.setattr(product, "MOST_PACKED", 10**9 if request.param == "packed" else 0)


def whole_numbers(shape, largest, seed):
    """Vectors whose products are exact in any order of summation, so ties are ties whoever multiplies."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, shape, generator=generator).float()


def pasts(num_users, num_items, seed=0):
    """Histories of very different lengths: nobody's, everything, and much of what is best."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [0, num_items, num_items - 3, *torch.randint(0, 90, (num_users - 3,), generator=generator).tolist()]
    lists = [torch.randperm(num_items, generator=generator)[:size].tolist() for size in sizes]
    return Histories.from_lists(lists, list(range(100, 100 + num_users)))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("largest", [1, 3, 60])  # ties through every cut-off, through some, through hardly any
@pytest.mark.parametrize("k", [1, 10, 60])
def test_lists_are_those_of_all_scores_and_ties_are_drawn_alike(k, largest, with_bias):
    users, items = whole_numbers((NUM_USERS, DIM), largest, 0), whole_numbers((NUM_ITEMS, DIM), largest, 1)
    bias = whole_numbers((NUM_ITEMS,), 5, 2) if with_bias else None
    scores = users @ items.t() if bias is None else users @ items.t() + bias
    seen = pasts(NUM_USERS, NUM_ITEMS)
    expected = top_k(scores, k, seen, seed=4)
    # The best are seen by some, so that what is hidden stands in the groups that are searched.
    best = expected[0][5, : k // 2 + 1].tolist()
    seen = replace(Histories.from_lists([*([[]] * 5), best, *([[]] * (NUM_USERS - 6))]), user_index=seen.user_index)
    for past in (pasts(NUM_USERS, NUM_ITEMS), seen, None):
        found = ProductSearch(items, bias).top_k(users, k, past, seed=4)
        expected = top_k(scores, k, past, seed=4)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_lists_of_any_vectors_are_right_and_equal_vectors_tie_wherever_they_stand():
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(size, DIM, generator=generator) for size in (NUM_USERS, NUM_ITEMS))
    bias = torch.randn(NUM_ITEMS, generator=generator)
    twins = torch.randperm(NUM_ITEMS, generator=generator)[: NUM_ITEMS // 2 * 2].view(2, -1)
    items[twins[0]], bias[twins[0]] = items[twins[1]], bias[twins[1]]
    seen = pasts(NUM_USERS, NUM_ITEMS)
    exact = (users[:, None].double() * items.double()).sum(dim=2) + bias.double()
    for k in (10, 11):
        found, scores = ProductSearch(items, bias).top_k(users, k, seen, seed=1)
        expected, wanted = top_k(exact, k, seen, seed=1)
        assert torch.equal(found, expected)
        assert torch.allclose(scores, wanted.float(), atol=1e-5)


def test_one_user_or_two_of_a_large_catalogue_get_the_lists_of_all_scores():
    num_items = FEW_SCORES + 7
    users, items = whole_numbers((2, DIM), 60, 0), whole_numbers((num_items, DIM), 60, 1)
    for size in (1, 2):
        scores = users[:size] @ items.t()
        best = top_k(scores, 30, None)[0]
        seen = Histories.from_lists([best[row, row::2].tolist() for row in range(size)])
        for past in (None, seen):
            found, expected = ProductSearch(items).top_k(users[:size], 10, past), top_k(scores, 10, past)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("num_items", [1, 70, NUM_ITEMS])
def test_any_size_of_catalogue_batch_and_list(num_items):
    users, items = whole_numbers((NUM_USERS, DIM), 2, 0), whole_numbers((num_items, DIM), 2, 1)
    for size in (0, 1, NUM_USERS):
        for k in (1, num_items, num_items + 5):
            found = ProductSearch(items).top_k(users[:size], k, None)
            expected = top_k(users[:size] @ items.t(), k, None)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])


def test_nan_raises_and_names_the_row():
    users, items = torch.ones(NUM_USERS, DIM), torch.ones(NUM_ITEMS, DIM)
    users[7, 2] = math.nan
    with pytest.raises(ArgumentError, match="scores hold NaN in row 7"):
        ProductSearch(items).top_k(users, 3, None)
    items[-1, 0] = math.nan
    everybody_saw_it = Histories.from_lists([[NUM_ITEMS - 1]] * NUM_USERS)
    with pytest.raises(ArgumentError, match="scores hold NaN in row 0"):
        ProductSearch(items).top_k(torch.ones(NUM_USERS, DIM), 3, everybody_saw_it)


def test_infinite_scores_lead_and_the_lowest_are_never_returned():
    users, items = torch.ones(NUM_USERS, 1), torch.full((NUM_ITEMS, 1), -math.inf)
    items[:8, 0] = torch.tensor([1.0, math.inf, 3.0, math.inf, 2.0, -1.0, 0.0, math.inf])
    found = ProductSearch(items).top_k(users, 10, None, seed=3)
    expected = top_k(users @ items.t(), 10, None, seed=3)
    assert torch.equal(found[0], expected[0])
    assert (found[0][:, 8:] == -1).all()
    assert torch.equal(found[1], expected[1])


def test_a_model_has_a_search_where_its_score_is_a_product():
    graph = planted_graph()
    histories = histories_of(graph)
    for model in (InductiveKGAT.from_graph(graph, dim=8), BPRMF.from_graph(graph, dim=8)):
        model.eval()
        search = ProductSearch.of(model, histories)
        with torch.no_grad():
            found = search.top_k(model.product(histories).users, 5, histories)
            assert torch.equal(found[0], top_k(model.score(histories), 5, histories)[0])
    for model in (
        InductiveKGAT.from_graph(graph, dim=8, match_temperature=0.1),
        InductiveKGAT.from_graph(graph, dim=8, head="mlp"),
        EASE.from_graph(graph),
    ):
        assert ProductSearch.of(model.eval(), histories) is None


@pytest.mark.parametrize(
    ("items", "bias", "users", "message"),
    [
        (torch.zeros(3), None, None, r"items must be float32 \[num_items, dim\] on the CPU, got torch.float32 \[3\]"),
        (torch.zeros(3, 2).double(), None, None, "items must be float32"),
        (torch.zeros(3, 2), torch.zeros(2), None, r"bias must be float32 \[3\], got torch.float32 \[2\]"),
        (torch.zeros(3, 2), None, torch.zeros(1, 3), r"users must be float32 \[batch_size, 2\], got torch.float32"),
    ],
)
def test_wrong_arguments_are_named(items, bias, users, message):
    with pytest.raises(ArgumentError, match=message):
        ProductSearch(items, bias).top_k(users, 1, None)
