"""RecBole's knowledge models and KGIN's own code behind our evaluator's door, for benchmark_training.py."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
import time
import types
from abc import abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from graphrec.histories import Histories
from graphrec.models.base import Recommender
from kg_loaders import RecGraph

PAIRS_AT_ONCE = 2**17


class Enough(Exception):  # noqa: N818  (not an error)
    """Raised to leave an epoch of somebody else's early."""


class Peer(Recommender):
    """Another library's model behind our evaluator's door."""

    num_steps: int  # of its optimiser, an epoch

    @classmethod
    def from_graph(cls, graph: RecGraph, **options: Any) -> Peer:
        """Make the peer's model; ``options`` are the constructor's."""
        return cls(graph, **options)

    @abstractmethod
    def epoch(self, at_most: int | None = None) -> list[float]:
        """Run an epoch, or its first steps; return the times at which steps ended."""


class RecBolePeer(Peer):
    """One of RecBole's knowledge models, trained by its own trainer with its own defaults."""

    def __init__(self, graph: RecGraph, code: Path, name: str, seed: int = 0) -> None:
        super().__init__(graph.num_items)
        for old, new in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
            if not hasattr(np, old):  # RecBole 1.2.1 was written for numpy 1
                setattr(np, old, new)
        if str(code.resolve()) not in sys.path:
            sys.path.insert(0, str(code.resolve()))
        # RecBole reads the command line for settings of its own, and writes its logs where it is started.
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            arguments, sys.argv = sys.argv, sys.argv[:1]
            try:
                self._build(graph, name, seed, scratch)
            finally:
                sys.argv = arguments

    def _build(self, graph: RecGraph, name: str, seed: int, scratch: str) -> None:
        write_atomic(graph, Path(scratch) / "data")
        settings = {
            "data_path": scratch,
            "checkpoint_dir": scratch,
            "benchmark_filename": ["train", "valid", "valid"],
            "load_col": {
                "inter": ["user_id", "item_id"],
                "kg": ["head_id", "relation_id", "tail_id"],
                "link": ["item_id", "entity_id"],
            },
            "use_gpu": False,
            "seed": seed,
            "state": "ERROR",
            "show_progress": False,
        }
        part = importlib.import_module
        config = part("recbole.config").Config(model=name, dataset="data", config_dict=settings)
        utils = part("recbole.utils")
        utils.init_seed(seed, reproducibility=True)
        dataset = part("recbole.data").create_dataset(config)
        self.loader, *_ = part("recbole.data").data_preparation(config, dataset)
        self.interaction = part("recbole.data.interaction").Interaction
        self.model = utils.get_model(name)(config, self.loader._dataset)
        self.trainer = utils.get_trainer(config["MODEL_TYPE"], name)(config, self.model)
        self.num_steps = -(-len(graph.part("train")) // config["train_batch_size"])
        self.number = 0
        self.users, self.items = (
            torch.tensor([dataset.field2token_id[column].get(str(old), 0) for old in range(size)])
            for column, size in (("user_id", graph.num_users), ("item_id", graph.num_items))
        )

    def epoch(self, at_most: int | None = None) -> list[float]:
        """Run the trainer's own epoch; each step of its optimiser is noted."""
        ends: list[float] = []
        step = self.trainer.optimizer.step

        def noted(*arguments: Any, **options: Any) -> Any:
            result = step(*arguments, **options)
            ends.append(time.perf_counter())
            if len(ends) == at_most:
                raise Enough
            return result

        self.trainer.optimizer.step = noted
        try:
            self.trainer._train_epoch(self.loader, self.number)
        except Enough:
            pass
        finally:
            self.trainer.optimizer.step = step
        self.number += 1
        return ends

    def score(self, histories: Histories) -> Tensor:
        """Return the model's own scores; an item that it never met comes last."""
        users = self.users[self.check_known(histories, len(self.users))]
        self.model.eval()
        # KGCN makes a vector for each pair of a user and an item.
        parts = users.split(max(1, PAIRS_AT_ONCE // self.num_items))
        scores = torch.cat([self._score_all(part) for part in parts])
        return scores[:, self.items].masked_fill(self.items == 0, -torch.inf)

    def _score_all(self, users: Tensor) -> Tensor:
        """Return scores of all that RecBole numbers as items, for its numbers of users."""
        try:
            scores: Tensor = self.model.full_sort_predict(self.interaction({"user_id": users}))
        except NotImplementedError:  # then RecBole itself asks for every pair
            every = torch.arange(int(self.items.max()) + 1)
            pairs = {"user_id": users.repeat_interleave(len(every)), "item_id": every.repeat(len(users))}
            scores = self.model.predict(self.interaction(pairs))
        return scores.view(len(users), -1)


def write_atomic(graph: RecGraph, folder: Path) -> None:
    """Write train and validation pairs and the triples as RecBole's atomic files; all names are numbers."""
    folder.mkdir()
    for split in ("train", "valid"):
        pairs = graph.part(split)
        table = {"user_id:token": pairs.user, "item_id:token": pairs.item}
        pd.DataFrame(table).to_csv(folder / f"data.{split}.inter", sep="\t", index=False)
    triples = dict(zip(("head_id:token", "relation_id:token", "tail_id:token"), graph.triples.T, strict=True))
    pd.DataFrame(triples).to_csv(folder / "data.kg", sep="\t", index=False)
    # RecBole fails on a link of an item without interactions.
    met = np.union1d(graph.part("train").item, graph.part("valid").item)
    linked = np.intersect1d(met, graph.triples[:, [0, 2]])
    table = {"item_id:token": linked, "entity_id:token": linked}
    pd.DataFrame(table).to_csv(folder / "data.link", sep="\t", index=False)


class KGINPeer(Peer):
    """KGIN by its authors' code, with the settings that their README gives for the data sets of the paper."""

    def __init__(self, graph: RecGraph, code: Path, seed: int = 0) -> None:
        super().__init__(graph.num_items)
        if importlib.util.find_spec("torch_scatter") is None:
            sys.modules["torch_scatter"] = types.ModuleType("torch_scatter")
            sys.modules["torch_scatter"].scatter_mean = scatter_mean  # type: ignore[attr-defined]
        sys.path.insert(0, str(code))
        arguments, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line when it is imported
        try:
            self.main = importlib.import_module("main")
            model = importlib.import_module("modules.KGIN").Recommender
        finally:
            sys.argv = arguments
            sys.path.remove(str(code))
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (what the peer draws from)
        self.settings = SimpleNamespace(
            dim=64,
            l2=1e-5,
            sim_regularity=1e-4,
            context_hops=3,
            n_factors=4,
            ind="distance",
            node_dropout=True,
            node_dropout_rate=0.5,
            mess_dropout=True,
            mess_dropout_rate=0.1,
            batch_size=1024,
            lr=1e-4,
            cuda=False,
            gpu_id=0,
        )
        triples = torch.from_numpy(graph.triples.copy())
        head, relation, tail = triples.unbind(1)
        # Its relation 0 is the interaction; the inverse of each relation is one of its own.
        both = torch.cat(
            [
                torch.stack([head, tail, relation + 1], dim=1),
                torch.stack([tail, head, relation + 1 + graph.num_relations], dim=1),
            ]
        )
        pairs = graph.part("train")
        self.pairs = torch.from_numpy(np.stack([pairs.user, pairs.item], axis=1).astype(np.int64))
        share = 1.0 / np.bincount(pairs.user, minlength=graph.num_users)[pairs.user]
        size = (graph.num_users, graph.num_entities)
        sizes = {
            "n_users": graph.num_users,
            "n_items": graph.num_items,
            "n_entities": graph.num_entities,
            "n_nodes": graph.num_users + graph.num_entities,
            "n_relations": 2 * graph.num_relations + 1,
        }
        edges = SimpleNamespace(edges=both.unique(dim=0).tolist())
        self.model = model(sizes, self.settings, edges, sp.coo_matrix((share, (pairs.user, pairs.item)), shape=size))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.settings.lr)
        self.num_steps = len(self.pairs) // self.settings.batch_size
        self.taken: dict[int, set[int]] = {user: set() for user in range(graph.num_users)}
        for user, item in self.pairs.tolist():
            self.taken[user].add(item)

    def epoch(self, at_most: int | None = None) -> list[float]:
        """Do what the loop of its main.py does; the last pairs that fill no batch are left out there too."""
        self.main.n_items, self.main.device = self.num_items, torch.device("cpu")
        self.model.train()
        pairs = self.pairs[torch.randperm(len(self.pairs))]
        ends = []
        for number in range(self.num_steps if at_most is None else at_most):
            start = number * self.settings.batch_size
            batch = self.main.get_feed_dict(pairs, start, start + self.settings.batch_size, self.taken)
            loss, *_ = self.model(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            ends.append(time.perf_counter())
        return ends

    def score(self, histories: Histories) -> Tensor:
        """Return the products of its final vectors."""
        known = self.check_known(histories, self.model.n_users)
        entities, users = self.model.generate()
        scores: Tensor = self.model.rating(users[known], entities[: self.num_items])
        return scores


def scatter_mean(src: Tensor, index: Tensor, dim_size: int, dim: int) -> Tensor:
    """Do what torch_scatter's function of this name does, for the one use that KGIN makes of it."""
    at = index.unsqueeze(1).expand_as(src)
    total = src.new_zeros(dim_size, src.size(1)).scatter_add_(dim, at, src)
    return total / torch.bincount(index, minlength=dim_size).clamp(min=1).unsqueeze(1)
