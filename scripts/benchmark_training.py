"""Train ours beside RecBole's KG models and KGIN's own code: seconds an epoch, and seconds to the same quality.

git clone https://github.com/RUCAIBox/RecBole ~/RecBole && pip install colorlog colorama texttable
git clone https://github.com/huangtinglin/Knowledge_Graph_based_Intent_Network ~/KGIN && pip install prettytable
python scripts/benchmark_training.py ml-100k --recbole ~/RecBole --kgin ~/KGIN --seconds 900
python scripts/benchmark_training.py alibaba-ifashion --recbole ~/RecBole --kgin ~/KGIN --steps 5

All see one split, one knowledge graph and one evaluator: ours, on the validation part, among all items. A peer trains
with its own trainer and its own defaults (KGIN's: those of its README) until its value has not risen for ``--patience``
evaluations or ``--seconds`` are spent; evaluation is not timed. Ours trains as its committed configuration says, and
the ratio compares the training seconds until it reaches the best value that the peer ever had. Where an epoch of a peer
takes hours, ``--steps`` times that many of its steps after one that is not counted, and scales them to an epoch (of
RecBole's KGAT only the steps over pairs are counted, those over triples are left out); its quality is then
unknown.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import types
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Threads that spin while they wait steal the processor from the others on a machine that is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from graphrec.evaluation import Evaluator
from graphrec.experiment import RunConfig
from graphrec.experiment.build import build_model
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.reading import read_options
from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.training import Trainer
from kg_loaders import RecGraph

RECBOLE_MODELS = ("KGCN", "CFKG")  # KGAT is there too, but needs DGL

Judge = Callable[[Recommender, RecGraph], float]


class Enough(Exception):  # noqa: N818  (not an error)
    """Raised to leave an epoch of somebody else's early."""


@dataclass
class Training:
    """What became of one training: ``points`` are (training seconds so far, value on validation).

    ``seconds_per_epoch`` is scaled from some steps where there are no points.
    """

    name: str
    seconds_per_epoch: float
    points: list[tuple[float, float]] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """The best value on validation; ``None`` where none was measured."""
        return max((value for _, value in self.points), default=None)

    def seconds_to(self, wanted: float) -> float | None:
        """Return the training seconds until ``wanted`` was reached, if it was."""
        return next((seconds for seconds, value in self.points if value >= wanted), None)


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
        try:
            scores = self.model.full_sort_predict(self.interaction({"user_id": users})).view(len(users), -1)
        except NotImplementedError:  # then RecBole itself asks for every pair
            every = torch.arange(int(self.items.max()) + 1)
            pairs = {"user_id": users.repeat_interleave(len(every)), "item_id": every.repeat(len(users))}
            scores = self.model.predict(self.interaction(pairs)).view(len(users), -1)
        return scores[:, self.items].masked_fill(self.items == 0, -torch.inf)


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


def train_peer(name: str, peer: Peer, graph: RecGraph, judge: Judge, seconds: float, patience: int) -> Training:
    """Train until the value stops rising or the time is up."""
    training, spent, since_best = Training(name, 0.0), 0.0, 0
    while spent < seconds and since_best < patience:
        start = time.perf_counter()
        peer.epoch()
        spent += time.perf_counter() - start
        value = judge(peer, graph)
        since_best = 0 if training.best is None or value > training.best else since_best + 1
        training.points.append((spent, value))
        training.seconds_per_epoch = spent / len(training.points)
        print(f"  {name:12s} epoch {len(training.points):3d}  {spent:7.1f} s  {value:.4f}", file=sys.stderr, flush=True)
    return training


def time_steps(name: str, peer: Peer, steps: int) -> Training:
    """Time some steps and scale them to an epoch."""
    ends = peer.epoch(at_most=steps + 1)
    return Training(name, (ends[-1] - ends[0]) / steps * peer.num_steps)


def train_ours(config: RunConfig, graph: RecGraph) -> Training:
    """Train as the configuration says, with a validation after each epoch."""
    model = build_model(config, graph)
    trainer = Trainer(replace(config.train, refit=False, eval_every=1), seed=config.seed, quiet=True)
    evaluator = Evaluator([config.train.select_by], seed=config.seed)
    result = trainer.fit(model, graph, evaluator)
    training, spent = Training(config.model.name, 0.0), 0.0
    for record in result.history:
        spent += record["seconds"]
        training.points.append((spent, record["valid"][config.train.select_by]))
    training.seconds_per_epoch = spent / len(training.points)
    return training


def as_row(training: Training, ours: Training) -> dict[str, Any]:
    """Return a training's figures, and how long ours took to the training's best value."""
    row: dict[str, Any] = {**asdict(training), "best": training.best, "ratio": None, "ours_to_its_best": None}
    if training.best is not None:
        row["seconds_to_best"] = training.seconds_to(training.best)
        row["ours_to_its_best"] = ours.seconds_to(training.best)
        if row["ours_to_its_best"] is not None:
            row["ratio"] = row["seconds_to_best"] / row["ours_to_its_best"]
    return row


def show(row: dict[str, Any], ours: Training, metric: str) -> str:
    """Return a line of the table."""
    times = row["seconds_per_epoch"] / ours.seconds_per_epoch
    line = f"{row['name']:14s} {row['seconds_per_epoch']:9.1f} s an epoch ({times:.1f}x ours)"
    if row["best"] is None:
        return line + ", scaled from some steps; its quality was not measured"
    line += f"  best {metric} {row['best']:.4f} after {row['seconds_to_best']:.0f} s of training"
    if row["name"] == ours.name:
        return line
    if row["ratio"] is None:
        return line + ", which ours did not reach"
    return line + f", ours after {row['ours_to_its_best']:.1f} s: {row['ratio']:.0f} times as fast"


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default="ml-100k", help="a data set with a committed configuration")
    parser.add_argument("--recbole", type=Path, metavar="FOLDER", help="a clone of RecBole")
    parser.add_argument("--models", nargs="+", default=RECBOLE_MODELS, help="RecBole's models")
    parser.add_argument("--kgin", type=Path, metavar="FOLDER", help="a clone of KGIN's authors' code")
    parser.add_argument("--ours", default="InductiveKGAT", help="our model")
    parser.add_argument("--seconds", type=float, default=900.0, help="the most that a peer may train")
    parser.add_argument("--patience", type=int, default=5, help="evaluations without a rise that end a peer's training")
    parser.add_argument("--steps", type=int, metavar="N", help="only time N steps of each peer")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows here")
    options = parser.parse_args(arguments)
    if options.recbole is None and options.kgin is None:
        parser.error("give --recbole or --kgin, or both: the folders of the peers' code")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # the peers' code is older than the libraries here
    config = read_options(["--model", options.ours], options.data).config
    graph = load_graph(config.data)
    config = resolve(config, graph)
    graph = prepare(graph, config)
    metric = config.train.select_by
    evaluator = Evaluator([metric])

    def judge(model: Recommender, graph: RecGraph) -> float:
        model.eval()
        with torch.no_grad():
            return evaluator.evaluate(model, graph, split="valid").metrics[metric]

    if options.steps is not None:  # what an epoch costs is seen after two
        config = replace(config, train=replace(config.train, epochs=2, valid_users=1000))
    ours = train_ours(config, graph)
    makers = {}
    if options.recbole is not None:
        makers |= {name: partial(RecBolePeer, graph, options.recbole, name) for name in options.models}
    if options.kgin is not None:
        makers["KGIN"] = partial(KGINPeer, graph, options.kgin)
    rows = [as_row(ours, ours)]
    print(show(rows[0], ours, metric), flush=True)
    for name, make in makers.items():
        peer = make()
        if options.steps is not None:
            training = time_steps(name, peer, options.steps)
        else:
            training = train_peer(name, peer, graph, judge, options.seconds, options.patience)
        rows.append(as_row(training, ours))
        print(show(rows[-1], ours, metric), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
