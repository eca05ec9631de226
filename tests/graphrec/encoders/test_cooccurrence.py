import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.encoders import CooccurrenceEncoder
from graphrec.errors import ArgumentError
from graphrec.histories import Histories


def similarities(histories, num_items):
    """The formula of the docstring, pair by pair."""
    x = np.zeros((len(histories), num_items))
    x[histories.rows, histories.items] = 1
    weight = np.maximum(x.sum(1), 1) ** -0.5
    counts = x.sum(0)
    c = (x.T * weight) @ x / (np.sqrt(np.outer(counts, counts)) + 10)
    np.fill_diagonal(c, 0)
    return c


def test_neighbours_are_the_most_similar_and_their_attention_sums_to_one():
    graph = planted_graph()
    histories = histories_of(graph)
    encoder = CooccurrenceEncoder(graph.num_items, num_neighbors=4, dim=3)
    encoder.prepare(histories)
    wanted = similarities(histories, graph.num_items)
    for item in range(graph.num_items):
        best = np.sort(wanted[item])[::-1][:4]
        expected = best / max(best.sum(), 1e-30)
        np.testing.assert_allclose(encoder.attention[item], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(wanted[item, encoder.neighbor[item]][best > 0], best[best > 0], rtol=1e-5)


def test_some_rows_are_rows_of_all():
    graph = planted_graph()
    encoder = CooccurrenceEncoder(graph.num_items, num_neighbors=4, dim=3, num_sides=2)
    encoder.prepare(histories_of(graph))
    tables = torch.randn(2, graph.num_items, 3)
    rows = torch.tensor([7, 0, 7])
    whole = encoder(*tables)
    part = encoder(*tables, rows=[None, rows])
    torch.testing.assert_close(part[0], whole[0])
    torch.testing.assert_close(part[1], whole[1][rows])


def test_an_item_that_nobody_took_has_no_neighbours():
    encoder = CooccurrenceEncoder(num_items=3, num_neighbors=5, dim=2)
    encoder.prepare(Histories.from_lists([[0, 1], []]))
    (near,) = encoder(torch.ones(3, 2))
    assert near.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]


def test_before_it_is_prepared_there_is_nothing():
    (near,) = CooccurrenceEncoder(num_items=3, num_neighbors=2, dim=2)(torch.ones(3, 2))
    assert not near.any()


def test_values_outside_their_range_are_named():
    with pytest.raises(ArgumentError, match="num_neighbors must be >= 1, got 0"):
        CooccurrenceEncoder(num_items=3, num_neighbors=0, dim=2)
