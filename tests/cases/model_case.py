"""What every recommender must do. A test class for a model inherits one of the cases and says how to make the model."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from cases.graphs import Relabelling, histories_of, other_history, planted_graph, relabel
from safetensors.torch import load_file, save_file
from torch import Tensor

from graphrec.errors import ArgumentError, NotFittedError, StrangerError
from graphrec.evaluation.topk import top_k
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender, GradientRecommender, Recommender
from kg_loaders import RecGraph

K = 10


class ModelCase(ABC):
    """Behaviour of all recommenders, on the planted graph.

    Inherit from :class:`ClosedFormCase` or :class:`GradientCase`, name the class ``Test...`` and set ``model_class``.
    """

    model_class: ClassVar[type[Recommender]]
    options: ClassVar[Mapping[str, Any]] = {}
    reads_history = True  # whether two histories give two answers
    beats_popularity = True  # false for popularity itself
    shared: ClassVar[Any]

    # How to make and fit one

    def make(self, graph: RecGraph, seed: int = 0) -> Any:
        """Return an unfitted model, the same for the same seed."""
        torch.manual_seed(seed)
        return self.model_class.from_graph(graph, **self.options)

    @abstractmethod
    def fit(self, graph: RecGraph, seed: int = 0) -> Any:
        """Return a model fitted to the training part, in evaluation mode."""

    @abstractmethod
    def relabelled(self, model: Any, relabelling: Relabelling) -> Any:
        """Return what ``model`` would be under other indices, in evaluation mode."""

    @pytest.fixture
    def fitted(self) -> Any:
        """A fitted model that all tests of the class share; whoever changes it takes a copy."""
        if "shared" not in vars(type(self)):
            type(self).shared = self.fit(planted_graph())
        return type(self).shared

    # Scores

    def test_scores_have_a_row_for_each_user_and_a_column_for_each_item(self, fitted: Recommender) -> None:
        graph = planted_graph()
        scores = score(fitted, histories_of(graph).select(torch.arange(5)))
        assert scores.shape == (5, graph.num_items)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()

    def test_scores_of_a_user_do_not_depend_on_the_batch(self, fitted: Recommender) -> None:
        histories = histories_of(planted_graph())
        rows = torch.tensor([7, 3, 7, 100])
        alone = torch.cat([score(fitted, histories.select(row[None])) for row in rows])
        assert_close(score(fitted, histories.select(rows)), alone)
        assert_close(score(fitted, histories)[rows], alone)

    def test_another_history_gives_another_answer(self, fitted: Recommender) -> None:
        first, second = Histories.from_lists([[0, 4]], [0]), Histories.from_lists([[1, 5, 9]], [0])
        same = torch.equal(score(fitted, first), score(fitted, second))
        assert same != self.reads_history

    def test_an_empty_history_has_finite_scores(self, fitted: Recommender) -> None:
        scores = score(fitted, Histories.from_lists([[], [3, 1], []], [0, 1, 2]))
        assert scores.shape == (3, fitted.num_items)
        assert scores.isfinite().all()

    def test_what_score_multiplies_gives_the_scores(self, fitted: Recommender) -> None:
        for graph_rows in ([7, 3, 7, 100], [0]):
            histories = histories_of(planted_graph()).select(torch.tensor(graph_rows))
            with torch.no_grad():
                product = fitted.product(histories)
            if product is not None:
                assert_close(product.scores(), score(fitted, histories))

    def test_an_empty_batch_has_no_rows(self, fitted: Recommender) -> None:
        assert score(fitted, Histories.from_lists([], [])).shape == (0, fitted.num_items)

    def test_seen_items_are_never_returned(self, fitted: Recommender) -> None:
        graph = planted_graph()
        histories = histories_of(graph)
        items, _ = top_k(score(fitted, histories), graph.num_items, histories)
        seen = {(int(u), int(i)) for u, i in zip(histories.rows, histories.items, strict=True)}
        returned = {(u, int(i)) for u, row in enumerate(items) for i in row if i >= 0}
        assert len(returned) == graph.num_users * graph.num_items - len(seen)
        assert not returned & seen

    def test_strangers_are_served_or_refused(self, fitted: Recommender) -> None:
        histories = histories_of(planted_graph()).select(torch.arange(6))
        if fitted.inductive:
            assert_close(score(fitted, histories.strangers()), score(fitted, histories))
            beyond = Histories(histories.items, histories.offsets, histories.user_index + 10**6)
            assert_close(score(fitted, beyond), score(fitted, histories))
        else:
            with pytest.raises(StrangerError, match="cannot serve a stranger"):
                score(fitted, histories.strangers())
            for outside in (-1, planted_graph().num_users):
                with pytest.raises(StrangerError, match=rf"knows users 0\.\.\d+, got {outside}"):
                    score(fitted, Histories.from_lists([[1], [1]], [0, outside]))

    @torch.no_grad()
    def test_items_outside_the_catalogue_are_refused(self, fitted: Recommender) -> None:
        if not fitted.inductive:
            pytest.skip("the model reads no history")

        def asked(histories: Histories) -> list[Callable[[], object]]:
            return [
                lambda: score(fitted, histories),
                lambda: fitted.product(histories),
                lambda: fitted.contributions(histories, 0),
                lambda: fitted.scores_without_each(histories),
            ]

        times = torch.tensor([1.0, 2.0], dtype=torch.float64)
        offsets = torch.tensor([0, 2])
        known = asked(Histories(torch.tensor([0, 1]), offsets, times=times))
        for outside in (fitted.num_items, -1):
            unknown = asked(Histories(torch.tensor([0, outside]), offsets, times=times))
            for works, fails in zip(known, unknown, strict=True):
                if works() is not None:
                    with pytest.raises(ArgumentError, match=rf"within 0\.\.{fitted.num_items - 1}, got "):
                        fails()

    def test_relabelling_users_and_items_permutes_the_answer(self, fitted: Recommender) -> None:
        graph = planted_graph()
        other = relabel(graph)
        new_scores = score(self.relabelled(fitted, other), histories_of(other.graph))
        expected = score(fitted, histories_of(graph))
        assert_close(new_scores[torch.from_numpy(other.users)][:, torch.from_numpy(other.items)], expected)

    # Weights

    def test_one_seed_gives_equal_weights(self, fitted: Recommender) -> None:
        again = self.fit(planted_graph()).state_dict()
        assert again.keys() == fitted.state_dict().keys()
        for name, value in fitted.state_dict().items():
            assert torch.equal(again[name], value), name

    def test_save_and_load_give_equal_lists(self, fitted: Recommender, tmp_path: Any) -> None:
        graph = planted_graph()
        histories = histories_of(graph)
        save_file(fitted.state_dict(), tmp_path / "model.safetensors")
        loaded = self.make(graph, seed=99)
        loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
        before, after = (top_k(score(model.eval(), histories), K, histories) for model in (fitted, loaded))
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])

    def test_loading_forgets_what_was_cached(self, fitted: Recommender) -> None:
        graph = planted_graph()
        histories = histories_of(graph)
        model = self.fit(other_history())
        stale = score(model, histories)
        model.load_state_dict(copy.deepcopy(fitted.state_dict()))
        assert torch.equal(score(model, histories), score(fitted, histories))
        assert not torch.equal(stale, score(model, histories))

    # Quality

    def test_beats_popularity(self, fitted: Recommender) -> None:
        graph = planted_graph()
        found = recall(score(fitted, histories_of(graph)), graph)
        counts = torch.bincount(histories_of(graph).items, minlength=graph.num_items).float()
        popular = recall(counts.repeat(graph.num_users, 1), graph)
        if self.beats_popularity:
            assert found > 2 * popular
        else:
            assert found == popular


class ClosedFormCase(ModelCase):
    """Behaviour of models that are fitted in one call."""

    model_class: ClassVar[type[ClosedFormRecommender]]

    def fit(self, graph: RecGraph, seed: int = 0) -> ClosedFormRecommender:
        model = self.make(graph, seed)
        model.fit(histories_of(graph))
        return model.eval()

    def relabelled(self, model: ClosedFormRecommender, relabelling: Relabelling) -> ClosedFormRecommender:
        return self.fit(relabelling.graph)

    def test_an_unfitted_model_says_so(self) -> None:
        graph = planted_graph()
        with pytest.raises(NotFittedError, match=f"{self.model_class.__name__} has not been fitted"):
            self.make(graph).score(histories_of(graph))
        loaded = self.make(graph)
        loaded.load_state_dict(self.make(graph).state_dict())
        with pytest.raises(NotFittedError):
            loaded.score(histories_of(graph))

    def test_fitting_again_forgets_the_first_fit(self, fitted: ClosedFormRecommender) -> None:
        graph = planted_graph()
        model = self.fit(other_history())
        score(model, histories_of(graph))
        model.fit(histories_of(graph))
        assert torch.equal(score(model, histories_of(graph)), score(fitted, histories_of(graph)))

    def test_a_state_of_another_catalogue_is_refused(self, fitted: ClosedFormRecommender) -> None:
        other = self.model_class(planted_graph().num_items + 1, **self.options)
        with pytest.raises(RuntimeError, match="must have shape"):
            other.load_state_dict(fitted.state_dict())

    def test_items_outside_the_catalogue_are_not_fitted(self, fitted: ClosedFormRecommender) -> None:
        outside = Histories.from_lists([[0, fitted.num_items]])
        with pytest.raises(ArgumentError, match=rf"within 0\.\.{fitted.num_items - 1}, got 0\.\.{fitted.num_items}"):
            copy.deepcopy(fitted).fit(outside)

    def test_nobody_took_anything(self) -> None:
        graph = planted_graph()
        model = self.make(graph)
        model.fit(Histories.from_lists([[], []]))
        assert torch.equal(score(model.eval(), Histories.from_lists([[1, 2]])), torch.zeros(1, graph.num_items))


class GradientCase(ModelCase):
    """Behaviour of models that are trained by gradient steps."""

    model_class: ClassVar[type[GradientRecommender]]
    epochs = 20
    learning_rate = 0.01
    batch_size = 32

    def fit(self, graph: RecGraph, seed: int = 0) -> GradientRecommender:
        model = self.make(graph, seed).train()
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), self.learning_rate)
        histories = histories_of(graph)
        model.prepare(histories)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(histories), generator=generator).split(self.batch_size):
                optimizer.zero_grad()
                model.loss(histories.select(rows), generator).backward()
                optimizer.step()
        model.complete(histories)
        return model.eval()

    def relabelled(self, model: GradientRecommender, relabelling: Relabelling) -> GradientRecommender:
        other = self.make(relabelling.graph)
        with torch.no_grad():
            for name, value in other.state_dict().items():
                value.copy_(self.relabelled_weight(name, model, other, relabelling))
        return other.eval()

    def relabelled_weight(self, name: str, model: Any, other: Any, relabelling: Relabelling) -> Tensor:
        """Return a weight of ``model`` as it is in ``other``, which has the new indices.

        By its length a weight is a table of users, items or entities, or of none. Override this for other tables.
        """
        value: Tensor = model.state_dict()[name]
        graph = relabelling.graph
        tables = {
            graph.num_users: relabelling.users,
            graph.num_items: relabelling.items,
            graph.num_entities: relabelling.entities,
        }
        if value.dim() == 0 or len(value) not in tables:
            return value
        return value[torch.from_numpy(np.argsort(tables[len(value)]))]

    def test_another_seed_gives_other_weights(self, fitted: GradientRecommender) -> None:
        other = self.make(planted_graph(), seed=1).state_dict()
        assert any(not torch.equal(other[name], value) for name, value in fitted.state_dict().items())

    def test_reset_draws_the_weights_of_a_new_model(self, fitted: GradientRecommender) -> None:
        model = copy.deepcopy(fitted)
        torch.manual_seed(5)
        model.reset_parameters()
        first = copy.deepcopy(model.state_dict())
        torch.manual_seed(5)
        model.reset_parameters()
        for name, value in model.state_dict().items():
            assert torch.equal(first[name], value), name
        changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), fitted.parameters(), strict=True)]
        assert any(changed)

    def test_every_weight_gets_a_gradient(self) -> None:
        model = self.make(planted_graph()).train()
        gradients = self.gradients(model, torch.arange(60))
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert gradients.keys() == trained
        for name, gradient in gradients.items():
            assert gradient.isfinite().all(), name
            assert gradient.abs().sum() > 0, name

    def test_a_batch_leaves_no_trace_in_the_gradient_of_the_next(self) -> None:
        first, second = torch.arange(0, 50), torch.arange(50, 85)
        model = self.make(planted_graph()).train()
        alone = self.gradients(copy.deepcopy(model), second)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        self.gradients(model, first)
        optimizer.step()
        optimizer.zero_grad()
        after = self.gradients(model, second)
        assert after.keys() == alone.keys()
        for name, gradient in alone.items():
            assert torch.equal(after[name], gradient), name

    def gradients(self, model: GradientRecommender, rows: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the loss of some users; equal rows draw equal numbers."""
        torch.manual_seed(3)
        model.loss(histories_of(planted_graph()).select(rows), torch.Generator().manual_seed(4)).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def test_preparing_twice_changes_nothing(self) -> None:
        model = self.make(planted_graph())
        model.prepare(histories_of(planted_graph()))
        once = copy.deepcopy(model.state_dict())
        model.prepare(histories_of(planted_graph()))
        for name, value in model.state_dict().items():
            assert torch.equal(once[name], value), name

    def test_users_without_items_add_nothing(self) -> None:
        model = self.make(planted_graph()).train()
        for histories in (Histories.from_lists([[], []], [0, 1]), Histories.from_lists([], [])):
            loss = model.loss(histories, torch.Generator().manual_seed(0))
            loss.backward()
            assert loss.dim() == 0
            assert loss.item() == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


class KGATCase(GradientCase):
    """Behaviour of InductiveKGAT, whose knowledge graph has a table of its own."""

    def relabelled_weight(self, name: str, model: Any, other: Any, relabelling: Relabelling) -> Tensor:
        if name != "kg.entity":
            return super().relabelled_weight(name, model, other, relabelling)
        # Rows follow the encoder's own list of sources: find each entity's old row by its old index.
        old_of_new = torch.from_numpy(relabelling.entities).argsort()
        old_rows = {int(entity): row for row, entity in enumerate(model.kg.entities)}
        rows = [old_rows[int(old_of_new[entity])] for entity in other.kg.entities]
        weight: Tensor = model.kg.entity[:, rows]
        return weight


def score(model: Recommender, histories: Histories) -> Tensor:
    with torch.no_grad():
        return model.score(histories)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Compare scores up to the order of sums."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def recall(scores: Tensor, graph: RecGraph, k: int = K) -> float:
    """Return the share of users whose validation item is among the best ``k`` that they have not taken."""
    items, _ = top_k(scores, k, histories_of(graph))
    wanted = graph.part("valid")
    return float(np.mean([item in items[user] for user, item in zip(wanted.user, wanted.item, strict=True)]))


def watch_large_tensors(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str = "large_tensor") -> list[int]:
    """Return a list that grows with each large tensor a model's module makes: how many earlier ones still live."""
    make, living = getattr(module, name), []
    made: list[weakref.ref[Tensor]] = []

    def watched(size: int, device: torch.device) -> Tensor:
        living.append(sum(tensor() is not None for tensor in made))
        tensor: Tensor = make(size, device)
        made.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(module, name, watched)
    return living


def relaxed(
    x: np.ndarray, l2: float, dropout: float, relax: float, of_users: np.ndarray | float = 1.0, of_items: Any = 1.0
) -> np.ndarray:
    """Return RDLAE's weights with a zero diagonal, by the papers' own steps in float64.

    Moon, Kim and Lee (2023): an item's multiplier is 0 where what it says of itself stays within the bound.
    """
    gram = x.T @ (x * np.reshape(of_users, (-1, 1)))
    penalties = (l2 + dropout / (1 - dropout) * np.diag(gram)) / of_items
    inverse = np.linalg.inv(gram + np.diag(penalties))
    free = 1 - np.diag(inverse) * penalties  # of itself, without a bound
    multipliers = np.where(free <= relax, 0.0, (1 - relax) / np.diag(inverse) - penalties)
    weights = np.eye(len(gram)) - inverse @ np.diag(penalties + multipliers)
    assert np.all(np.diag(weights) <= relax + 1e-9)
    np.fill_diagonal(weights, 0.0)
    return weights
