import gc

import pytest
import torch

from graphrec.errors import ArgumentError
from graphrec.layers.ops import (
    EdgeLayout,
    TypedPairs,
    additive_scores,
    dot_scores,
    gatv2,
    gatv2_scores,
    linear_maps,
    stacked_maps,
)
from graphrec.layers.ops.edges import _LAYOUTS
from graphrec.layers.ops.kernels import sampled_product
from graphrec.layers.ops.pairs import relational_sum

EDGES = torch.tensor([[0, 1, 1, 3, 0, 1, 2], [2, 2, 0, 0, 2, 2, 4]])
TYPES = torch.tensor([0, 1, 1, 2, 1, 0, 0])
NUM_SRC, NUM_DST, NUM_TYPES = 4, 5, 3


def layouts():
    layout = EdgeLayout.from_edge_index(EDGES, NUM_SRC, NUM_DST)
    return layout, layout.types(TYPES, NUM_TYPES)


def randn(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def test_a_layout_is_the_graph_in_both_directions():
    layout, _ = layouts()
    assert torch.equal(torch.stack([layout.src.long(), layout.destination.long()]), EDGES[:, layout.order])
    transposed = torch.stack([layout.src, layout.destination])[:, layout.transpose]
    assert transposed[0].tolist() == sorted(EDGES[0].tolist())
    assert torch.equal(transposed[1], layout.dst)
    assert layout.colptr.tolist() == [0, 2, 5, 6, 7]
    values = torch.arange(7)
    assert torch.equal(layout.restore(layout.arrange(values)), values)
    assert layout.src.dtype == torch.int32


def test_sorted_edges_keep_their_order_and_are_not_sorted_again():
    order = torch.argsort(EDGES[1], stable=True)
    layout = EdgeLayout.from_edge_index(EDGES[:, order], NUM_SRC, NUM_DST)
    assert layout.permutation is None
    assert layout.order.tolist() == list(range(7))
    again = EdgeLayout.from_rowptr(layout.rowptr, EDGES[0, order], NUM_SRC)
    assert torch.equal(again.src, layout.src)
    assert torch.equal(again.destination, layout.destination)


def test_equal_destinations_keep_the_callers_order():
    many = torch.stack([torch.randint(50, (5000,)), torch.randint(7, (5000,))])
    layout = EdgeLayout.from_edge_index(many, 50, 7)
    assert torch.equal(layout.order, torch.argsort(many[1], stable=True))
    assert torch.equal(layout.transpose, torch.argsort(layout.src, stable=True))


def test_a_layout_is_remembered_while_its_edges_live_unchanged():
    edges = EDGES.clone()
    layout = EdgeLayout.of(edges, NUM_SRC, NUM_DST)
    assert EdgeLayout.of(edges, NUM_SRC, NUM_DST) is layout
    assert EdgeLayout.of(edges, NUM_SRC + 1, NUM_DST) is not layout
    edges[0, 0] = 3
    assert EdgeLayout.of(edges, NUM_SRC, NUM_DST).src.tolist() != layout.src.tolist()
    before = len(_LAYOUTS)
    del edges
    gc.collect()
    assert len(_LAYOUTS) < before
    with torch.inference_mode():
        fleeting = EDGES.clone()
    assert EdgeLayout.of(fleeting, NUM_SRC, NUM_DST) is not EdgeLayout.of(fleeting, NUM_SRC, NUM_DST)


def test_pointers_that_do_not_fit_are_refused():
    src = torch.tensor([0, 1, 2])
    for rowptr, message in [
        ([0, 2, 1, 3], r"rowptr must rise from 0 to 3, got 0\.\.3"),
        ([0, 2], r"rowptr must rise from 0 to 3, got 0\.\.2"),
        ([1, 3], r"got 1\.\.3"),
        ([], r"rowptr and src must be vectors, rowptr not empty, got \[0\], \[3\]"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            EdgeLayout.from_rowptr(torch.tensor(rowptr, dtype=torch.int64), src, 4)
    with pytest.raises(ArgumentError, match=r"sources must be within 0\.\.1, got 0\.\.2"):
        EdgeLayout.from_rowptr(torch.tensor([0, 3]), src, 2)


def test_sampled_products_do_not_read_memory_that_nobody_wrote():
    layout, _ = layouts()
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        out = sampled_product(layout.rowptr, layout.src, torch.ones(NUM_DST, 2), torch.ones(NUM_SRC, 2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert out.tolist() == [2.0] * 7


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_additive_scores_and_their_gradients(slope):
    layout, types = layouts()
    parts = (randn(NUM_SRC, 2), randn(NUM_DST, 2), randn(NUM_TYPES, 2), randn(7, 2))
    expected = parts[0][EDGES[0]] + parts[1][EDGES[1]] + parts[2][TYPES] + layout.restore(parts[3])
    expected = torch.nn.functional.leaky_relu(expected, slope)

    def scores(source, destination, by_type, edge):
        return additive_scores(layout, source, destination, by_type, types, edge, slope)

    torch.testing.assert_close(scores(*parts), expected[layout.order])
    assert torch.autograd.gradcheck(scores, parts)


def test_dot_scores_and_their_gradients():
    layout, _ = layouts()
    query, key = randn(NUM_DST, 2, 3), randn(NUM_SRC, 2, 3)
    expected = (query[EDGES[1]] * key[EDGES[0]]).sum(dim=2)[layout.order]
    torch.testing.assert_close(dot_scores(query, key, layout), expected)
    assert torch.autograd.gradcheck(lambda q, k: dot_scores(q, k, layout), (query, key))


def test_more_parallel_edges_than_there_are_pairs_of_nodes():
    edges = torch.tensor([[0, 1, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0, 1, 1]])
    layout = EdgeLayout.from_edge_index(edges, 2, 2)
    query, key = randn(2, 2, 3), randn(2, 2, 3)
    expected = (query[edges[1]] * key[edges[0]]).sum(dim=2)[layout.order]
    torch.testing.assert_close(dot_scores(query, key, layout), expected)
    assert torch.autograd.gradcheck(lambda q, k: dot_scores(q, k, layout), (query, key))


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_gatv2_scores_do_not_depend_on_the_blocks(block, monkeypatch):
    monkeypatch.setattr(gatv2, "BLOCK_NUMBERS", block * 6)  # so many edges at a time
    layout, types = layouts()
    parts = (randn(2, 3), randn(NUM_SRC, 2, 3), randn(NUM_DST, 2, 3), randn(NUM_TYPES, 2, 3))
    hidden = parts[1][EDGES[0]] + parts[2][EDGES[1]] + parts[3][TYPES]
    expected = (torch.nn.functional.leaky_relu(hidden, 0.2) * parts[0]).sum(dim=2)[layout.order]

    def scores(att, source, destination, vectors):
        return gatv2_scores(att, source, destination, layout, vectors, types)

    torch.testing.assert_close(scores(*parts), expected)
    assert torch.autograd.gradcheck(scores, parts)


def test_relational_sums_and_their_gradients():
    layout, types = layouts()
    x, vectors = randn(NUM_SRC, 3), randn(NUM_TYPES, 3)
    expected = torch.zeros(NUM_DST, 3, dtype=torch.float64).index_add(0, EDGES[1], vectors[TYPES] * x[EDGES[0]])
    torch.testing.assert_close(relational_sum(x, vectors, layout, types), expected)
    assert torch.autograd.gradcheck(lambda a, b: relational_sum(a, b, layout, types), (x, vectors))


def test_pairs_are_the_distinct_types_and_destinations():
    layout, types = layouts()
    pairs = TypedPairs.of(layout, types)
    found = [(t, n) for t in range(NUM_TYPES) for n in pairs.node[pairs.bounds[t] : pairs.bounds[t + 1]].tolist()]
    assert found == sorted({(t, n) for t, n in zip(TYPES.tolist(), EDGES[1].tolist(), strict=True)})
    assert TypedPairs.of(layout, types) is pairs


def test_linear_maps_and_their_gradients():
    x, first, second = randn(5, 3), randn(2, 3), randn(4, 3)
    for ours, weight in zip(linear_maps(x, first, second), (first, second), strict=True):
        torch.testing.assert_close(ours, x @ weight.t())
    assert torch.autograd.gradcheck(lambda *args: linear_maps(*args), (x, first, second))
    linear_maps(x, first, second)[1].sum().backward()  # nobody asked for the first
    torch.testing.assert_close(x.grad, second.sum(dim=0).expand(5, 3))
    assert first.grad is None


def stacked_by_hand(xs, stacks, width):
    parts = [
        [xs[number] @ weight.t() + (0.0 if bias is None else bias) for number, weight, bias in stack]
        for stack in stacks
    ]
    return [torch.cat(part) if part else xs[0].new_empty(0, width) for part in parts]


def test_stacked_maps_and_their_gradients():
    torch.manual_seed(0)
    xs = [torch.randn(size, 3, dtype=torch.float64, requires_grad=True) for size in (4, 0, 2)]
    weights = [torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def stacks(first, second, third, fourth, bias):
        return [(0, first, bias), (2, second, None), (0, third, bias)], [], [(1, fourth, bias), (0, first, None)]

    for ours, theirs in zip(
        stacked_maps(xs, stacks(*weights, bias)), stacked_by_hand(xs, stacks(*weights, bias), 5), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(
        lambda *given: [out for out in stacked_maps(given[:3], stacks(*given[3:])) if len(out)], (*xs, *weights, bias)
    )
    stacked_maps(xs, stacks(*weights, bias))[2].sum().backward()  # nobody asked for the first
    assert xs[2].grad is None
    assert weights[1].grad is None
    assert weights[0].grad is not None


def test_stacked_maps_under_autocast():
    torch.manual_seed(0)
    xs = [torch.randn(4, 3), torch.randn(2, 3)]
    stacks = [[(0, torch.randn(5, 3), torch.randn(5)), (1, torch.randn(5, 3), None)], []]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = stacked_maps(xs, stacks)
    assert half[0].dtype == torch.bfloat16
    for ours, theirs in zip(half, stacked_by_hand(xs, stacks, 5), strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=0.05, rtol=0.05)
