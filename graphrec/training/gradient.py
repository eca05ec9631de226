"""GradientFit: the select and refit phases of a model trained by gradient steps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from graphrec.errors import DivergedError
from graphrec.histories import Histories
from graphrec.models.base import GradientRecommender
from graphrec.training.checkpoint import Checkpointer
from graphrec.training.config import TrainConfig
from graphrec.training.early_stopping import EarlyStopping
from graphrec.training.identity import check_identity
from graphrec.training.interrupt import Interrupted, InterruptGuard
from graphrec.training.learner import Learner, load_trained, trained_state
from graphrec.training.progress import Progress
from graphrec.training.result import Evaluates, OnRecord, Record, TrainResult, few_valid_users, validate
from graphrec.training.seed import derive_seed, seed_global
from kg_loaders import RecGraph
from kg_loaders.graph import Split

Phase = Literal["select", "refit", "done"]


@dataclass
class State:
    """Where a run stands: the next step to take, and the sums over the current epoch. Plain values, kept as JSON."""

    phase: Phase = "select"
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_users: int = 0
    epoch_seconds: float = 0.0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("select", "refit", "evaluate", "prepare"), 0.0)
    )
    history: list[Record] = field(default_factory=list)
    chosen: dict[str, float] = field(default_factory=dict)
    chosen_valid: dict[str, float] = field(default_factory=dict)  # metrics with what was chosen


class GradientFit:
    """One run, from its first step or from its checkpoint.

    Args:
        model: The model, on ``device``.
        graph: With a train and a validation part.
        evaluator: Asked for the validation part only.
        config: How to train.
        seed: Of the whole run.
        device: Where to train.
        checkpointer: Where and when to save.
        identity: What the run is; a checkpoint with another identity is refused.
        on_record: Called with every record, after resuming first with the earlier ones.
        progress: What to show.
    """

    def __init__(
        self,
        model: GradientRecommender,
        graph: RecGraph,
        evaluator: Evaluates,
        config: TrainConfig,
        seed: int,
        device: torch.device,
        checkpointer: Checkpointer,
        identity: Mapping[str, Any],
        on_record: OnRecord,
        progress: Progress,
    ) -> None:
        self.model = model
        self.graph = graph
        self.measured = few_valid_users(graph, config.valid_users)
        self.evaluator = evaluator
        self.config = config
        self.seed = seed
        self.device = device
        self.checkpointer = checkpointer
        self.identity = identity
        self.on_record = on_record
        self.progress = progress
        self.state = State()
        self.stopping = EarlyStopping(config.patience)
        self.best: dict[str, Tensor] = {}  # of the best epoch, see _kept
        self.guard = InterruptGuard()
        self.generator = torch.Generator()

    def run(self) -> TrainResult:
        """Go through the phases that are left and return the result; the model ends in evaluation mode."""
        if not self._resume():
            self._begin("select" if self.config.select else "refit")
        with self.guard:
            if self.state.phase == "select":
                self._train(self.config.epochs)
                self._end_select()
            if self.state.phase == "refit":
                self._train(self._num_refit_epochs)
                self._finish()
        self.model.eval()
        return self._result()

    # Phases

    @property
    def _num_refit_epochs(self) -> int:
        """As many as selecting chose, or without it all."""
        return self.stopping.best_epoch if self.config.select else self.config.epochs

    def _begin(self, phase: Phase) -> None:
        """Draw the weights from the seed and stand before the first step of ``phase``."""
        seed_global(self.seed, self.device)
        self.model.reset_parameters()
        if self.state.chosen:
            self.model.set_chosen(self.state.chosen)
        self.state.phase, self.state.epoch, self.state.step = phase, 0, 0
        self._make_learner()

    def _make_learner(self) -> None:
        self._prepare()
        self.learner = Learner(self.model, self.config, self.device)

    def _prepare(self) -> None:
        start = time.perf_counter()
        self.model.prepare(self._histories().to(self.device))
        self.state.seconds["prepare"] += time.perf_counter() - start

    def _histories(self) -> Histories:
        refitting = self.config.refit and self.state.phase != "select"
        splits: tuple[Split, ...] = ("train", "valid") if refitting else ("train",)
        return Histories.from_interactions(self.graph.part(*splits), self.graph.num_users)

    def _end_select(self) -> None:
        if self.best:
            load_trained(self.model, self.best)
        if self.model.chooses:
            self._choose()
        self.best, self.learner.average = {}, {}
        if self.config.refit:
            self._release()
            self._begin("refit")
            self.checkpointer.save(self._content)
        else:
            self._finish()

    def _release(self) -> None:
        """Let go of moments, gradients and cached vectors: the next phase brings its own."""
        del self.learner
        self.model.zero_grad()
        self.model.forget()

    def _complete(self) -> None:
        """Let the model make what ranking needs."""
        start = time.perf_counter()
        self.model.complete(self._histories().to(self.device))
        self.state.seconds["prepare"] += time.perf_counter() - start

    def _choose(self) -> None:
        """Let the model choose with the weights of the best epoch."""
        asked: list[dict[str, float]] = []

        def ask() -> float:
            self._stop_if_asked()
            asked.append(validate(self.evaluator, self.model, self.measured))
            return asked[-1][self.config.select_by]

        self._complete()
        start = time.perf_counter()
        self.model.eval()
        self.state.chosen = self.model.choose(ask)
        self.state.chosen_valid = max(asked, key=lambda valid: valid[self.config.select_by])
        self.state.seconds["evaluate"] += time.perf_counter() - start
        values = ", ".join(f"{name} = {value:g}" for name, value in self.state.chosen.items())
        best = self.state.chosen_valid[self.config.select_by]
        self.progress.note(f"chosen {values}: {self.config.select_by} {best:.4f}")

    def _finish(self) -> None:
        self.learner.use_average()
        self._complete()
        self.state.phase = "done"
        self.checkpointer.save(self._content)

    def _train(self, num_epochs: int) -> None:
        """Train from the current position to the end of the phase."""
        histories = self._histories()
        users = histories.lengths.nonzero().squeeze(1)  # a user without a past has nothing to learn from
        num_steps = -(-len(users) // self.config.batch_size)
        self.model.train()
        self.progress.start(self.state.phase, num_epochs, num_steps)
        while self.state.epoch < num_epochs and not (self.state.phase == "select" and self.stopping.should_stop):
            self._train_epoch(histories, users, num_steps)
            self._end_epoch(num_epochs, num_steps)

    def _train_epoch(self, histories: Histories, users: Tensor, num_steps: int) -> None:
        state, size = self.state, self.config.batch_size
        place = (state.phase, state.epoch)
        self.generator.manual_seed(derive_seed(self.seed, *place))
        order = users[torch.randperm(len(users), generator=self.generator)]
        while state.step < num_steps:
            start = time.perf_counter()
            rows = order[state.step * size : (state.step + 1) * size]
            batch = histories.select(rows).to(self.device)
            self.generator.manual_seed(derive_seed(self.seed, *place, state.step))
            # Dropout draws from the global generator; its own label keeps the two streams apart.
            seed_global(derive_seed(self.seed, *place, state.step, "global"), self.device)
            loss = self._step(batch, num_steps)
            state.loss_sum += loss * len(rows)
            state.num_users += len(rows)
            state.step += 1
            state.epoch_seconds += time.perf_counter() - start
            self.progress.step(state.epoch, state.step, loss)
            if self.checkpointer.due:
                self.checkpointer.save(self._content)
            self._stop_if_asked()

    def _step(self, batch: Histories, num_steps: int) -> float:
        state = self.state
        rate = self.config.learning_rate_at(state.epoch, state.step, num_steps)
        try:
            return self.learner.step(batch, self.generator, rate, state.epoch * num_steps + state.step)
        except FloatingPointError as error:
            raise DivergedError(
                f"training {type(self.model).__name__} went astray in phase {state.phase}, epoch {state.epoch + 1}, "
                f"step {state.step + 1} of {num_steps}: {error} (learning rate {rate:.3g}); "
                "try a lower learning_rate, or a clip_norm"
            ) from None

    def _end_epoch(self, num_epochs: int, num_steps: int) -> None:
        """Evaluate where it is due, record, and move on to the next epoch."""
        state, number = self.state, self.state.epoch + 1
        due = number % self.config.eval_every == 0 or number == num_epochs
        if number == num_epochs:
            self.learner.release()  # what the model completes itself with may need much memory of its own
        valid = self._validate(number) if state.phase == "select" and due else None
        record: Record = {
            "phase": state.phase,
            "epoch": number,
            "loss": state.loss_sum / state.num_users,
            "valid": valid,
            "seconds": state.epoch_seconds,
            "lr": self.config.learning_rate_at(state.epoch, num_steps - 1, num_steps),
        }
        state.history.append(record)
        state.seconds[state.phase] += state.epoch_seconds
        state.epoch, state.step = number, 0
        state.loss_sum, state.num_users, state.epoch_seconds = 0.0, 0, 0.0
        self.progress.record(record)
        self.on_record(record)
        if self.checkpointer.due or self.checkpointer.cheap:
            self.checkpointer.save(self._content)
        self._stop_if_asked()

    def _validate(self, number: int) -> dict[str, float]:
        self._complete()
        start = time.perf_counter()
        with self.learner.evaluating():
            valid = validate(self.evaluator, self.model, self.measured)
            better = self.stopping.update(number, valid[self.config.select_by])
            if better:
                self.best = self._kept(last=number == self.config.epochs)
        self.state.seconds["evaluate"] += time.perf_counter() - start
        return valid

    def _kept(self, last: bool) -> dict[str, Tensor]:
        """Return the weights as they are evaluated, where they are wanted later and the model will not hold them."""
        wanted = self.model.chooses or not self.config.refit
        if not wanted or (last and not self.learner.average):
            return {}
        return {name: value.detach().clone() for name, value in trained_state(self.model).items()}

    # Stopping and resuming

    def _stop_if_asked(self) -> None:
        if self.guard.requested is not None:
            self.checkpointer.save(self._content)
            where = f"phase {self.state.phase}, epoch {self.state.epoch + 1}, step {self.state.step}"
            raise Interrupted(self.guard.requested, where, self.checkpointer.path)

    def _content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.state.phase == "done":
            tensors: dict[str, Tensor] = {f"model/{k}": v for k, v in trained_state(self.model).items()}
        else:
            tensors = self.learner.tensors() | {f"best/{name}": value for name, value in self.best.items()}
        return tensors, {
            "identity": self.identity,
            "state": asdict(self.state),
            "stopping": self.stopping.state(),
            "num_threads": torch.get_num_threads(),
        }

    def _resume(self) -> bool:
        """Continue from the checkpoint, if there is one."""
        loaded = self.checkpointer.load()
        if loaded is None:
            return False
        tensors, saved = loaded
        assert self.checkpointer.path is not None
        check_identity(self.checkpointer.path, saved["identity"], self.identity)
        # Sums over threads depend on how many there are; `deterministic` puts the number back after the run.
        torch.set_num_threads(saved["num_threads"])
        # A checkpoint of an earlier version may count fewer kinds of seconds.
        self.state = State(**saved["state"] | {"seconds": State().seconds | saved["state"]["seconds"]})
        self.stopping.restore(saved["stopping"])
        self.best = {k.removeprefix("best/"): v.to(self.device) for k, v in tensors.items() if k.startswith("best/")}
        load_trained(self.model, tensors, "model/")  # what is prepared may hang on it
        if self.state.phase == "done":
            histories = self._histories().to(self.device)
            self.model.prepare(histories)
            load_trained(self.model, tensors, "model/")
            self.model.complete(histories)
        else:
            self._make_learner()
            self.learner.restore(tensors)
        for record in self.state.history:
            self.on_record(record)
        where = f"phase {self.state.phase}, epoch {self.state.epoch + 1}, step {self.state.step}"
        self.progress.note(f"resumed {self.checkpointer.path} at {where}")
        return True

    def _result(self) -> TrainResult:
        selected = [record for record in self.state.history if record["phase"] == "select"]
        valid: dict[str, float] = {}
        if self.config.select:
            valid = self.state.chosen_valid or selected[self.stopping.best_epoch - 1]["valid"]
        return TrainResult(
            best_epoch=self._num_refit_epochs,
            best_value=valid.get(self.config.select_by, -math.inf),
            valid=dict(valid),
            num_epochs=len(selected),
            seconds=dict(self.state.seconds),
            history=list(self.state.history),
            chosen=dict(self.state.chosen),
        )
