"""A tiny model, graph and evaluator for the tests of training; fast, yet with every source of state that a run has."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphrec.evaluation import Evaluation, Evaluator
from graphrec.histories import Histories
from graphrec.models.base import ClosedFormRecommender, GradientRecommender, Recommender
from graphrec.training import TrainConfig, Trainer, TrainResult
from kg_loaders import Interactions, RecGraph, Vocabulary

NUM_USERS, NUM_ITEMS, NUM_ENTITIES = 41, 30, 35
TRAIN, VALID, TEST = 0, 1, 2


def tiny_graph(seed: int = 0, parts: tuple[int, ...] = (TRAIN, VALID, TEST)) -> RecGraph:
    """Users of two tastes; user 0 has no train items, user 1 no items at all; only ``parts`` are kept."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in (0, *range(2, NUM_USERS)):
        own = rng.permutation(np.arange(user % 2, NUM_ITEMS, 2))[: 7 if user else 3]
        codes = [VALID, TEST, TEST] if user == 0 else [TRAIN] * 4 + [VALID, VALID, TEST]
        rows += [(user, int(item), code) for item, code in zip(own, codes, strict=True) if code in parts]
    user, item, split = (np.array(column) for column in zip(*rows, strict=True))
    triples = np.stack([np.arange(NUM_ITEMS), np.zeros(NUM_ITEMS), NUM_ITEMS + np.arange(NUM_ITEMS) % 5], axis=1)
    return RecGraph(
        users=Vocabulary.from_range(NUM_USERS, "user"),
        entities=Vocabulary.from_range(NUM_ENTITIES, "entity"),
        num_items=NUM_ITEMS,
        interactions=Interactions(user.astype(np.int64), item.astype(np.int64), split=split.astype(np.int8)),
        relations=Vocabulary(["genre"], "relation"),
        triples=triples.astype(np.int64),
        name="tiny",
    )


class TinyModel(GradientRecommender):
    """Mean of the history's vectors times item vectors; with dropout, sampled negatives and a running buffer."""

    def __init__(self, num_items: int = NUM_ITEMS, dim: int = 8, dropout: float = 0.2, num_negatives: int = 5) -> None:
        super().__init__(num_items)
        self.num_negatives = num_negatives
        self.inputs = nn.Embedding(num_items, dim)
        self.outputs = nn.Embedding(num_items, dim)
        self.unused = nn.Parameter(torch.empty(2))  # never gets a gradient, so never has moments
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("level", torch.zeros(()))
        self.before_loss: Callable[[int], None] = lambda number: None
        self.seen: list[Histories] = []
        self.prepared: list[int] = []
        self._count = 0
        self.reset_parameters()

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> TinyModel:
        return cls(graph.num_items, **options)

    def reset_parameters(self) -> None:
        for table in (self.inputs, self.outputs):
            nn.init.normal_(table.weight, std=0.3)
        nn.init.ones_(self.unused)
        self.level.zero_()

    def prepare(self, histories: Histories) -> None:
        self.prepared.append(histories.items.numel())

    def users(self, histories: Histories) -> Tensor:
        summed = self.inputs.weight.new_zeros(len(histories), self.inputs.embedding_dim)
        summed = summed.index_add(0, histories.rows, self.inputs(histories.items))
        return self.dropout(summed / histories.lengths.clamp(min=1)[:, None])

    def score(self, histories: Histories) -> Tensor:
        return self.users(histories) @ self.cached("outputs", lambda: self.outputs.weight.clone()).T

    def loss(self, histories: Histories, generator: torch.Generator) -> Tensor:
        self._count += 1
        self.before_loss(self._count)
        self.seen.append(histories)
        users = self.users(histories)[histories.rows]
        negatives = torch.randint(self.num_items, (len(users), self.num_negatives), generator=generator)
        candidates = torch.cat([histories.items[:, None], negatives.to(histories.items.device)], dim=1)
        logits = (users[:, None] * self.outputs(candidates)).sum(-1)
        value = nn.functional.cross_entropy(logits, torch.zeros(len(users), dtype=torch.int64, device=logits.device))
        self.level.lerp_(value.detach(), 0.1)  # a buffer that every step changes, as batch norm's
        return value


class TinyClosedForm(ClosedFormRecommender):
    """Popularity with a power to choose among three."""

    def __init__(self, num_items: int = NUM_ITEMS, powers: tuple[float, ...] = (-1.0, 1.0, 0.0)) -> None:
        super().__init__(num_items)
        self.powers = powers
        self.power = powers[0] if powers else 1.0
        self.register_buffer("counts", torch.zeros(num_items))
        self.fitted: list[Histories] = []

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> TinyClosedForm:
        return cls(graph.num_items, **options)

    def score(self, histories: Histories) -> Tensor:
        scores = self.cached("scores", lambda: (1 + self.counts) ** self.power)
        return scores.expand(len(histories), self.num_items)

    def fit(self, histories: Histories, validate: Callable[[], float] | None = None) -> dict[str, float]:
        self.fitted.append(histories)
        self.counts.copy_(torch.bincount(histories.items, minlength=self.num_items))
        if validate is None or not self.powers:
            return {}
        values = {}
        for power in self.powers:
            self.power = power
            values[power] = validate()
        self.power = max(values, key=values.__getitem__)
        return {"power": self.power}


def snapshot(model: Recommender) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def equal_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@dataclass
class StubEvaluation:
    metrics: dict[str, float]


class StubEvaluator:
    """Recall@5 and mean reciprocal rank on one split, and a log of what it was asked."""

    metrics = ("recall@5", "mrr")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._asked: list[tuple[str, bool, dict[str, Tensor]]] = []

    @property
    def asked(self) -> list[tuple[str, bool, dict[str, Tensor]]]:
        """Of every call the split, the mode of the model, and its weights."""
        return self._asked

    def evaluate(self, model: Recommender, graph: RecGraph, split: str = "valid") -> StubEvaluation:
        wanted = graph.part(split)
        histories = Histories.from_interactions(graph.part("train"), graph.num_users)
        self._asked.append((split, model.training, snapshot(model)))
        model.eval()
        scores = model.score(histories).clone()
        scores[histories.rows, histories.items] = -torch.inf
        user, item = torch.from_numpy(wanted.user), torch.from_numpy(wanted.item)
        rank = 1 + (scores[user] > scores[user, item][:, None]).sum(1)
        recall = (rank <= 5).double().mean().item()
        return StubEvaluation({"recall@5": recall, "mrr": rank.double().reciprocal().mean().item()})


class ScriptedEvaluator:
    """Hands out given values of ``mrr``, one an evaluation, and keeps the weights it saw."""

    metrics = ("mrr",)

    def __init__(self, values: list[float]) -> None:
        self._values = iter(values)
        self._weights: list[dict[str, Tensor]] = []

    @property
    def weights(self) -> list[dict[str, Tensor]]:
        return self._weights

    def evaluate(self, model: Recommender, graph: RecGraph, split: str = "valid") -> StubEvaluation:
        self._weights.append(snapshot(model))
        return StubEvaluation({"mrr": next(self._values)})


def tiny_config(**settings: Any) -> TrainConfig:
    """Five epochs of four steps in select, the averages on."""
    defaults: dict[str, Any] = {
        "epochs": 5,
        "batch_size": 11,
        "learning_rate": 0.05,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup": 0.1,
        "clip_norm": 0.5,
        "ema_decay": 0.9,
        "select_by": "mrr",
        "device": "cpu",
    }
    return TrainConfig(**{**defaults, **settings})


def fit_tiny(
    run_dir: Path | None = None, model: Recommender | None = None, seed: int = 3, **settings: Any
) -> tuple[Recommender, TrainResult]:
    """Fit a tiny model to the tiny graph."""
    model = TinyModel() if model is None else model
    result = Trainer(tiny_config(**settings), seed=seed, quiet=True).fit(model, tiny_graph(), StubEvaluator(), run_dir)
    return model, result


def outcome(model: Recommender, result: TrainResult) -> tuple[dict[str, bytes], Any]:
    """Return all that two equal runs agree on: the bytes of every weight, and all of every record but its time."""
    weights = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    history = [[(key, value) for key, value in record.items() if key != "seconds"] for record in result.history]
    return weights, (result.best_epoch, result.best_value, result.valid, result.num_epochs, history)


class StoppingEvaluator(Evaluator):
    """NDCG@10; asks for a stop, as Ctrl-C does, while it measures for the n-th time.

    What it counts is private: a checkpoint tells evaluators apart by their public values.
    """

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__(["ndcg@10"])
        self._stop_at = stop_at
        self._num_calls = 0

    def evaluate(self, *args: Any, **kwargs: Any) -> Evaluation:
        self._num_calls += 1
        if self._num_calls == self._stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().evaluate(*args, **kwargs)
