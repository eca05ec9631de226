import torch
from cases.graphs import histories_of, planted_graph
from cases.model_case import ClosedFormCase

from graphrec.histories import Histories
from graphrec.models import Popularity


class TestPopularity(ClosedFormCase):
    model_class = Popularity
    reads_history = False
    beats_popularity = False


def test_scores_count_users():
    graph = planted_graph()
    model = Popularity.from_graph(graph)
    assert model.fit(histories_of(graph), validate=lambda: 0.0) == {}
    train = graph.part("train")
    for item in (0, 17, graph.num_items - 1):
        assert model.score(Histories.from_lists([[]]))[0, item] == (train.item == item).sum()


def test_scores_may_be_written_to():
    model = Popularity(num_items=3)
    model.fit(Histories.from_lists([[0, 2], [2]]))
    model.score(Histories.from_lists([[0]])).fill_(-1.0)
    assert torch.equal(model.score(Histories.from_lists([[0]])), torch.tensor([[1.0, 0.0, 2.0]]))
