from __future__ import annotations

import json
import mmap
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.planted_folder import write_planted

from graphrec.errors import RunError
from graphrec.evaluation import Evaluator
from graphrec.experiment import RunFolder, run
from graphrec.experiment.config import DataConfig, EvalConfig, ModelConfig, RunConfig
from graphrec.experiment.data import load_graph, prepare
from graphrec.experiment.runner import default_out, peak_memory_mb, reset_peak_memory
from graphrec.serving.recommender import RunRecommender
from graphrec.training import TrainConfig, Trainer
from kg_loaders.synthetic import planted


@pytest.fixture
def config(dataset: Path) -> RunConfig:
    return RunConfig(
        DataConfig(str(dataset)),
        ModelConfig("InductiveKGAT"),
        TrainConfig(epochs=3, batch_size=16, select_by="recall@10"),
        EvalConfig(("recall@10", "coverage@10")),
        seed=1,
    )


def test_run_leaves_everything_that_is_known(config: RunConfig, tmp_path: Path) -> None:
    folder = run(config, tmp_path / "run", quiet=True)
    names = {path.name for path in folder.path.iterdir()}
    expected = {"config.yaml", "run.json", "model.safetensors", "metrics.json", "per_user.safetensors", "log.jsonl"}
    assert expected <= names <= expected | {"tensorboard"}
    metrics = folder.metrics
    assert set(metrics["valid"]) == set(metrics["test"]) == {"recall@10", "coverage@10"}
    seconds = metrics["seconds"]
    assert seconds["train"] == pytest.approx(seconds["select"] + seconds["refit"] + seconds["prepare"])
    assert 1 <= metrics["best_epoch"] <= metrics["num_epochs"] <= 3
    assert metrics["peak_memory_mb"] > 10
    records = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
    assert [record["phase"] for record in records].count("select") == metrics["num_epochs"]
    assert [record["phase"] for record in records].count("refit") == metrics["best_epoch"]


def test_a_model_that_finds_no_triples_says_so_once(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_planted(tmp_path / "films")
    (tmp_path / "films" / "triples.csv").rename(tmp_path / "films" / "kg.csv")
    own = replace(config, data=DataConfig(str(tmp_path / "films")))
    line = "films has no triples (file not read: kg.csv): InductiveKGAT learns without them"
    for said, asked in (
        (1, own),
        (0, own),  # it is finished
        (0, replace(own, data=replace(own.data, kg="none"))),
        (0, replace(own, model=ModelConfig("Popularity"))),
        (0, config),
    ):
        run(asked, tmp_path / f"{asked.hash}")
        assert capsys.readouterr().err.splitlines().count(line) == said


def test_a_folder_that_cannot_be_made_is_named(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=f"the folder --out {tmp_path}/file/run cannot be made: Not a directory"):
        run(config, tmp_path / "file" / "run", quiet=True)


def test_metrics_are_those_of_the_saved_weights(config: RunConfig, tmp_path: Path) -> None:
    folder = run(config, tmp_path / "run", quiet=True)
    graph = prepare(load_graph(folder.config.data), folder.config)
    again = Evaluator(["recall@10", "coverage@10"], seed=1).evaluate(folder.load_model(graph), graph, "test")
    assert again.metrics == folder.metrics["test"]
    users, values = folder.per_user("test")
    assert torch.equal(users, again.users)
    assert float(values["recall@10"].mean()) == pytest.approx(folder.metrics["test"]["recall@10"])


def test_one_seed_gives_one_result(config: RunConfig, tmp_path: Path) -> None:
    first, second = (run(config, tmp_path / name, quiet=True) for name in ("a", "b"))
    assert first.info.files["model.safetensors"] == second.info.files["model.safetensors"]
    other = run(replace(config, seed=2), tmp_path / "c", quiet=True)
    assert other.info.files["model.safetensors"] != first.info.files["model.safetensors"]


def test_interrupted_run_resumes_and_ends_the_same(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config, tmp_path / "whole", quiet=True)
    fit = Trainer.fit

    def stop_after_two(self: Trainer, *args: Any, on_record: Any, **kwargs: Any) -> Any:
        def stop(record: dict[str, Any]) -> None:
            on_record(record)
            if record["epoch"] == 2:
                raise KeyboardInterrupt

        return fit(self, *args, on_record=stop, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run", quiet=True)
    assert not RunFolder.open(tmp_path / "run").finished
    resumed = run(config, tmp_path / "run", quiet=True)
    assert resumed.info.files["model.safetensors"] == whole.info.files["model.safetensors"]
    assert resumed.metrics["test"] == whole.metrics["test"]
    assert not (resumed.path / "checkpoint.safetensors").exists()
    epochs = [json.loads(line)["epoch"] for line in (resumed.path / "log.jsonl").read_text().splitlines()]
    assert epochs[:3] == [1, 2, 3]  # nothing twice


def test_finished_run_is_not_trained_again(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(config, tmp_path / "run", quiet=True)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "fit", refuse)
    assert run(config, tmp_path / "run", quiet=True).metrics == first.metrics
    with pytest.raises(RunError, match=r"another configuration \(train.epochs: 3 there, 4 here\)"):
        run(replace(config, train=replace(config.train, epochs=4)), tmp_path / "run", quiet=True)


def test_run_finished_by_another_commit_is_reused_but_said(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(config, tmp_path / "run", quiet=True)
    capsys.readouterr()
    run(config, tmp_path / "run")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("graphrec.experiment.runner.current_commit", lambda: "0123")
    assert run(config, tmp_path / "run").metrics == first.metrics
    assert "was finished by" in capsys.readouterr().err


def test_without_a_refit_validation_is_measured_user_by_user(config: RunConfig, tmp_path: Path) -> None:
    kept = replace(config, train=replace(config.train, refit=False))
    folder = run(kept, tmp_path / "run", quiet=True)
    _, values = folder.per_user("valid")
    assert float(values["recall@10"].mean()) == pytest.approx(folder.metrics["valid"]["recall@10"])


def test_without_a_test_part_there_is_no_test_figure(config: RunConfig, tmp_path: Path) -> None:
    graph = planted(num_users=30, num_items=40, num_cold_items=4)
    codes = graph.interactions.split
    assert codes is not None
    folder = run(config, tmp_path / "run", graph=graph.with_split(codes.clip(max=1)), quiet=True)
    assert "test" not in folder.metrics
    assert folder.metrics["valid"]["recall@10"] >= 0


@pytest.mark.parametrize("has_test", [True, False])
def test_without_selecting_validation_has_no_figure(config: RunConfig, tmp_path: Path, has_test: bool) -> None:
    graph = planted(num_users=30, num_items=40, num_cold_items=4)
    codes = graph.interactions.split
    assert codes is not None
    graph = graph if has_test else graph.with_split(codes.clip(max=1))
    at_once = replace(config, train=replace(config.train, select=False))
    folder = run(at_once, tmp_path / "run", graph=graph, quiet=True)
    assert {"valid", "test"} & folder.metrics.keys() == ({"test"} if has_test else set())
    assert folder.metrics["best_epoch"] == config.train.epochs
    assert folder.metrics["num_epochs"] == 0
    assert folder.metrics["seconds"]["select"] == 0


def test_closed_form_says_what_it_chose(config: RunConfig, tmp_path: Path) -> None:
    folder = run(replace(config, model=ModelConfig("EASE")), tmp_path / "run", quiet=True)
    assert folder.metrics["chosen"] == {"power": 1.0}
    assert folder.metrics["best_epoch"] == 0


def test_run_is_served_from_its_folder_alone(config: RunConfig, tmp_path: Path) -> None:
    folder = run(config, tmp_path / "run", quiet=True)
    recommender = RunRecommender.load(folder.path)
    user = recommender.graph.users.id_of(3)
    assert len(recommender.recommend(user_id=user, k=5)) == 5
    title = recommender.graph.item_labels[7]
    assert len(recommender.recommend(history=[title], k=5)) == 5


def test_default_folder_is_named_after_data_and_configuration(config: RunConfig) -> None:
    assert default_out(config) == Path("runs") / "films" / config.label
    assert default_out(replace(config, out="there")) == Path("there")


def test_peak_memory_sees_what_was_used_since_the_reset() -> None:
    reset_peak_memory()
    before = peak_memory_mb()
    # Fresh pages from the system: a long-lived process could serve a tensor out of memory that it already holds.
    with mmap.mmap(-1, 100_000_000) as block:
        block.write(bytes(100_000_000))
        assert peak_memory_mb() > before + 90


@pytest.mark.skipif(sys.platform != "linux", reason="the heap that keeps what is freed is glibc's")
def test_peak_memory_does_not_count_what_an_earlier_run_freed() -> None:
    program = textwrap.dedent("""
        from graphrec.process import settle_process
        settle_process()
        import torch
        from graphrec.experiment.runner import peak_memory_mb, reset_peak_memory

        reset_peak_memory()
        before = peak_memory_mb()
        blocks = [torch.ones(16_384) for _ in range(3_000)]  # 200 MB
        kept = blocks[::300]
        del blocks
        reset_peak_memory()
        print(peak_memory_mb() - before)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100
