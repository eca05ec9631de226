from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphrec.errors import ConfigError, RunError
from graphrec.experiment import RunFolder, compare_runs
from graphrec.experiment.reading import read_options
from graphrec.experiment.report import Table
from graphrec.experiment.runner import run
from kg_loaders import SPLITS
from kg_loaders.formats import tables
from kg_loaders.synthetic import planted

SHORT = ["--train.epochs=1", "--train.select_by=recall@10", "--eval.metrics=recall@10,coverage@10"]


def labels(table: Table) -> list[tuple[str, int]]:
    return [(row.label, len(row.seeds)) for row in table.rows]


def finished(dataset: Path, out: Path, *options: str) -> Path:
    """Train one run to its end and return its folder."""
    config = read_options([*SHORT, "--train.refit=false", *options], str(dataset)).config
    return run(config, out, quiet=True).path


def test_finished_runs_make_a_table(dataset: Path, tmp_path: Path) -> None:
    names = ("first", "second", "none", "wide", "popularity")
    settings = ((), ("--seed=1",), ("--data.kg=none",), ("--model.dim=6",), ("--model=Popularity",))
    paths = [finished(dataset, tmp_path / name, *given) for name, given in zip(names, settings, strict=True)]
    table = compare_runs(paths, versus=paths[0], out=tmp_path / "table")
    assert labels(table) == [
        ("InductiveKGAT, with KG", 2),
        ("InductiveKGAT, no KG", 1),
        ("InductiveKGAT, with KG (model.dim 6)", 1),
        ("Popularity", 1),
    ]
    assert (table.part, table.tested, table.reference) == ("test", "recall@10", "InductiveKGAT, with KG")
    assert [row.p_value is None for row in table.rows] == [True, False, False, False]
    means = [RunFolder.open(path).metrics["test"]["recall@10"] for path in paths[:2]]
    assert table.rows[0].figures["recall@10"].mean == pytest.approx(sum(means) / 2)
    assert (tmp_path / "table" / "table.md").is_file()
    assert compare_runs(paths).reference == "Popularity"


def test_rows_that_differ_in_one_setting_alike_say_another(dataset: Path, tmp_path: Path) -> None:
    faster = "--train.learning_rate=0.02"
    settings = ((), ("--model.dim=6",), ("--model.dim=6", faster), ("--model.dim=7", faster))
    paths = [finished(dataset, tmp_path / str(i), *given) for i, given in enumerate(settings)]
    assert [label for label, _ in labels(compare_runs(paths))] == [
        "InductiveKGAT, with KG",
        "InductiveKGAT, with KG (model.dim 6)",
        "InductiveKGAT, with KG (model.dim 6, train.learning_rate 0.02)",
        "InductiveKGAT, with KG (model.dim 7)",
    ]


def test_data_without_triples_have_no_row_with_a_kg(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    tables.write(planted(num_users=30, num_items=40), folder)
    (folder / "triples.csv").unlink()
    paths = [finished(folder, tmp_path / str(dim), f"--model.dim={dim}") for dim in (4, 5)]
    assert [label for label, _ in labels(compare_runs(paths))] == ["InductiveKGAT", "InductiveKGAT (model.dim 5)"]


def test_runs_that_answer_other_questions_are_refused(dataset: Path, tmp_path: Path) -> None:
    path = finished(dataset, tmp_path / "own")
    with pytest.raises(ConfigError, match="at least two, got 1"):
        compare_runs([path, path])
    with pytest.raises(ConfigError, match="versus must be one of the compared runs"):
        compare_runs([path, tmp_path / "other"], versus=tmp_path / "third")
    with pytest.raises(RunError, match="no such run folder"):
        compare_runs([path, tmp_path / "absent"])
    other = finished(dataset, tmp_path / "other", "--eval.metrics=recall@5", "--train.select_by=recall@5")
    with pytest.raises(ConfigError, match=r"differ in eval.metrics: \['recall@10', 'coverage@10'\] and \['recall@5'\]"):
        compare_runs([path, other])


def test_runs_without_a_common_part_are_refused(tmp_path: Path) -> None:
    graph = planted(num_users=30, num_items=40, num_cold_items=4)
    split = graph.interactions.split.copy()
    split[split == SPLITS.index("test")] = SPLITS.index("train")
    folder = tmp_path / "films"
    tables.write(graph.with_split(split), folder)
    paths = [finished(folder, tmp_path / f"refit-{refit}", f"--train.refit={refit}") for refit in ("false", "true")]
    with pytest.raises(
        RunError, match="refit-true was fitted to the validation part as well.*with --train.refit false"
    ):
        compare_runs(paths)
    paths[1] = finished(folder, tmp_path / "at-once", "--train.select=false", "--train.refit=true")
    with pytest.raises(RunError, match="at-once was fitted to.*with --train.select true --train.refit false"):
        compare_runs(paths)


def test_runs_measured_on_other_users_are_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [finished(dataset, tmp_path / str(seed), f"--seed={seed}") for seed in (0, 1)]
    whole = RunFolder.per_user

    def per_user(self: RunFolder, split: str) -> Any:
        users, values = whole(self, split)
        return (users[1:] if self.path == paths[1] else users), values

    monkeypatch.setattr(RunFolder, "per_user", per_user)
    with pytest.raises(RunError, match="were measured on other users"):
        compare_runs(paths)


def test_a_run_named_twice_is_one_run(dataset: Path, tmp_path: Path) -> None:
    path = finished(dataset, tmp_path / "run")
    with pytest.raises(ConfigError, match="takes at least two, got 1"):
        compare_runs([path, f"{path}/", path / ".." / "run"])


def test_one_seed_trained_twice_is_not_two_seeds(dataset: Path, tmp_path: Path) -> None:
    paths = [finished(dataset, tmp_path / name, "--model=EASE") for name in ("one", "again")]
    paths.append(finished(dataset, tmp_path / "popularity", "--model=Popularity"))
    with pytest.raises(ConfigError, match=r"one and .*again are one configuration with one seed, 0; leave one out"):
        compare_runs(paths)
