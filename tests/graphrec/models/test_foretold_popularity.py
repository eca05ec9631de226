from __future__ import annotations

import numpy as np
import pytest
import torch
from cases.graphs import planted_graph

from graphrec.encoders.similarity import ContentSimilarity
from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import InductiveKGAT
from graphrec.models.foretold_popularity import foretold_popularity
from kg_loaders.graph import Feature


def made_popular(num_items: int = 200, num_cold: int = 40) -> tuple[ContentSimilarity, torch.Tensor, np.ndarray]:
    """Items whose log counts are linear in their content, without the counts of the last ones."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(num_items, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    popularity = 4 + vectors @ [2.0, -1.0, 0.5, 0.0, 0.0]
    counts = np.exp(popularity).round().astype(int)
    counts[-num_cold:] = 0
    similarity = ContentSimilarity(num_items, {"image": Feature.vectors(vectors)})
    return similarity, torch.from_numpy(counts), popularity


def test_what_content_says_of_popularity_is_found():
    similarity, counts, popularity = made_popular()
    foretold = foretold_popularity(similarity, counts)
    assert not foretold[:-40].any()
    assert foretold[-40:].mean().item() == pytest.approx(0, abs=1e-6)
    expected = popularity[-40:] - popularity[-40:].mean()
    assert np.corrcoef(foretold[-40:].numpy(), expected)[0, 1] > 0.99
    assert np.polyfit(expected, foretold[-40:].numpy(), 1)[0] == pytest.approx(1, abs=0.15)


def test_what_all_items_have_says_nothing_of_one(monkeypatch):
    similarity, counts, _ = made_popular()
    expected = foretold_popularity(similarity, counts)
    rows = similarity.table(256)
    monkeypatch.setattr(similarity, "table", lambda dim: rows + 3.0)
    torch.testing.assert_close(foretold_popularity(similarity, counts), expected)


@pytest.mark.parametrize("counts", [[3, 1, 2], [0, 0, 0]])
def test_nothing_is_foretold_where_there_is_nobody_to_learn_of_or_for(counts):
    similarity = ContentSimilarity(3, {"image": Feature.vectors([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])})
    assert not foretold_popularity(similarity, torch.tensor(counts)).any()


def test_only_items_without_a_user_are_scored_anew():
    similarity, counts, _ = made_popular()
    histories = Histories.from_lists([[item] for item, count in enumerate(counts.tolist()) for _ in range(count)])
    content = {"image": Feature.vectors(similarity.vectors["image"])}
    triples = torch.empty(0, 3, dtype=torch.int64)
    models = []
    for foretelling in (False, True):
        torch.manual_seed(0)
        model = InductiveKGAT(200, 0, triples, dim=8, content=content, content_popularity=foretelling)
        model.prepare(histories)
        models.append(model.eval())
    with torch.no_grad():
        plain, told = (model.score(Histories.from_lists([[0, 1]]))[0] for model in models)
    assert torch.equal(plain[:-40], told[:-40])
    torch.testing.assert_close(told[-40:] - plain[-40:], models[1].foretold[-40:])
    assert models[1].foretold[-40:].std() > 0.5


def test_there_must_be_something_to_foretell_from():
    with pytest.raises(ArgumentError, match="there must be content"):
        InductiveKGAT(3, 0, torch.empty(0, 3, dtype=torch.int64), content_popularity=True)
    assert InductiveKGAT.from_graph(planted_graph(), dim=8, content_popularity=True).content_similarity.names == ("kg",)
