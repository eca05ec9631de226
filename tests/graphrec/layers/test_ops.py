import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ArgumentError
from graphrec.layers.ops import (
    EdgeLayout,
    additive_scores,
    attend,
    dot_scores,
    gatv2_scores,
    segment_softmax,
    weighted_sum,
)


@st.composite
def graphs(draw):
    num_src, num_dst = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    edge = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    edges = draw(st.lists(edge, max_size=20))  # parallel edges and isolated nodes among them
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).t(), num_src, num_dst


@settings(deadline=None)
@given(graphs(), st.integers(0, 10**6))
def test_softmax_and_sum_equal_a_naive_loop(graph, seed):
    edge_index, num_src, num_dst = graph
    generator = torch.Generator().manual_seed(seed)
    layout = EdgeLayout.from_edge_index(edge_index, num_src, num_dst)
    scores = torch.randn(edge_index.size(1), 2, dtype=torch.float64, generator=generator)
    x = torch.randn(num_src, 2, 3, dtype=torch.float64, generator=generator)
    out = weighted_sum(segment_softmax(scores[layout.order], layout.rowptr), x, layout)
    expected = torch.zeros(num_dst, 2, 3, dtype=torch.float64)
    for node in range(num_dst):
        edges = (edge_index[1] == node).nonzero()[:, 0]
        if len(edges):
            alpha = scores[edges].softmax(dim=0)
            expected[node] = (alpha[:, :, None] * x[edge_index[0, edges]]).sum(dim=0)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("heads", [None, 2])
def test_gradients_are_exact(heads):
    edge_index = torch.tensor([[0, 1, 1, 3, 0, 1], [2, 2, 0, 0, 2, 2]])
    layout = EdgeLayout.from_edge_index(edge_index, num_src=4, num_dst=5)
    shape = (6,) if heads is None else (6, heads)
    scores = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x = torch.randn((4, *shape[1:], 3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s, v: weighted_sum(segment_softmax(s, layout.rowptr), v, layout), (scores, x)
    )


def test_large_scores_stay_finite():
    alpha = segment_softmax(torch.tensor([1e4, -1e4, -1e4, -1e4]), torch.tensor([0, 2, 2, 4]))
    torch.testing.assert_close(alpha, torch.tensor([1.0, 0.0, 0.5, 0.5]))


def test_edges_out_of_range_are_refused():
    with pytest.raises(ArgumentError, match=r"destinations must be within 0\.\.1, got 0\.\.2"):
        EdgeLayout.from_edge_index(torch.tensor([[0, 0], [0, 2]]), num_src=3, num_dst=2)
    with pytest.raises(ArgumentError, match="edge_index must be integers"):
        EdgeLayout.from_edge_index(torch.zeros(3, 2), num_src=3, num_dst=2)


@pytest.mark.parametrize("num_edges", [3, 1 << 17])  # torch's kernels and the compiled ones, which see addresses alone
def test_what_does_not_fit_the_edges_is_refused(num_edges):
    layout = EdgeLayout.from_edge_index(torch.zeros(2, num_edges, dtype=torch.int64), num_src=4, num_dst=5)
    types = layout.types(torch.zeros(num_edges, dtype=torch.int64), 2)
    x, y, att = torch.zeros(4, 1, 8), torch.zeros(5, 1, 8), torch.zeros(1, 8)
    alpha, vectors = torch.zeros(num_edges, 1), torch.zeros(2, 1, 8)
    for call, message in [
        (lambda: dot_scores(y[:3], x, layout), r"query must have a row for each destination, 5, got \[3, 1, 8\]"),
        (lambda: dot_scores(y, x[:3], layout), "key must have a row for each source, 4"),
        (lambda: dot_scores(y, x[..., :4], layout), "same heads and channels"),
        (lambda: weighted_sum(alpha[:-1], x, layout), f"alpha must have a row for each edge, {num_edges}"),
        (lambda: weighted_sum(alpha, x[:3], layout), "x must have a row for each source, 4"),
        (lambda: weighted_sum(alpha, x.expand(-1, 2, -1), layout), "alpha must have a column for each of the 2 heads"),
        (lambda: attend(alpha[:-1], x, layout), "scores must have a row for each edge"),
        (lambda: attend(alpha, x[:3], layout), "x must have a row for each source, 4"),
        (lambda: additive_scores(layout, x[:3, :, 0]), "source must have a row for each source, 4"),
        (lambda: additive_scores(layout, None, y[:3, :, 0]), "destination must have a row for each destination, 5"),
        (lambda: additive_scores(layout, by_type=vectors[:1, :, 0], types=types), "by_type must have a row for each"),
        (lambda: additive_scores(layout, edge=alpha[:-1]), "edge must have a row for each edge"),
        (lambda: gatv2_scores(att, x[:3], y, layout, vectors, types), "source must have a row for each source, 4"),
        (lambda: gatv2_scores(att, x, y[:3], layout, vectors, types), "destination must have a row for each"),
        (lambda: gatv2_scores(att, x, y, layout, vectors[:1], types), "vectors must have a row for each source, 2"),
        (
            lambda: gatv2_scores(att[:, :4], x, y, layout, vectors, types),
            r"heads and channels \[1, 4\], got \[4, 1, 8\]",
        ),
    ]:
        with pytest.raises(ArgumentError, match=message):
            call()
