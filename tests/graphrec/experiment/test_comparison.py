from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cases.toy_models import ToyKGAT

from graphrec.errors import ArgumentError, ConfigError, RunError
from graphrec.experiment import RunFolder, compare, compare_runs
from graphrec.experiment.comparison import reads_kg
from graphrec.experiment.reading import read_options
from graphrec.experiment.report import Table
from graphrec.experiment.runner import run
from graphrec.models import MODELS
from kg_loaders import SPLITS
from kg_loaders.formats import tables
from kg_loaders.synthetic import planted

SHORT = ["--train.epochs=1", "--train.select_by=recall@10", "--eval.metrics=recall@10,coverage@10"]


def labels(table: Table) -> list[tuple[str, int]]:
    return [(row.label, len(row.seeds)) for row in table.rows]


def test_popularity_and_ease_are_always_in(dataset: Path, tmp_path: Path) -> None:
    table = compare(
        str(dataset),
        ["inductive-kgat"],
        seeds=[0, 1],
        kg=["full", "none", "shuffled"],
        options=SHORT,
        out=tmp_path,
        quiet=True,
    )
    assert labels(table) == [
        ("Popularity", 1),
        ("EASE", 1),
        ("InductiveKGAT, with KG", 2),
        ("InductiveKGAT, no KG", 2),
        ("InductiveKGAT, shuffled KG", 2),
    ]
    assert (table.part, table.split, table.reference) == ("test", "given", "InductiveKGAT, with KG")
    assert [row.p_value is None for row in table.rows] == [False, False, True, False, False]
    for row in table.rows:
        recall, coverage = row.figures["recall@10"], row.figures["coverage@10"]
        assert recall.low is not None
        assert recall.high is not None
        assert recall.low <= recall.mean <= recall.high
        assert (coverage.low is None) == (len(row.seeds) == 1)  # an interval over seeds needs several
    full, none, shuffled = ([RunFolder.open(run).info for run in row.runs] for row in table.rows[2:])
    assert full[0].sizes["triples"] == 80
    assert none[0].sizes["triples"] == 0
    assert shuffled[0].sizes["triples"] > 40
    assert len({info.graph_fingerprint for info in (*full, *none, *shuffled)}) == 4  # every seed shuffles anew
    assert {path.name for path in tmp_path.glob("table.*")} == {"table.csv", "table.md", "table.png"}


def test_what_is_finished_is_not_trained_again(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(str(dataset), ["InductiveKGAT"], seeds=[0], options=SHORT, out=tmp_path, quiet=True)
    trained: list[int] = []
    loss = ToyKGAT.loss

    def count(self: ToyKGAT, *args: Any) -> Any:
        trained.append(1)
        return loss(self, *args)

    monkeypatch.setattr(ToyKGAT, "loss", count)
    again = compare(str(dataset), ["InductiveKGAT"], seeds=[0], options=SHORT, out=tmp_path, quiet=True)
    assert again == first
    assert not trained
    more = compare(str(dataset), ["InductiveKGAT"], seeds=[0, 1], options=SHORT, out=tmp_path, quiet=True)
    assert labels(more)[-1] == ("InductiveKGAT, with KG", 2)
    assert more.rows[-1].runs[0] == first.rows[-1].runs[0]
    assert len(trained) == 2  # one epoch selecting, one refitting, for the one new seed


def test_mean_is_over_seeds(dataset: Path, tmp_path: Path) -> None:
    single = [
        compare(str(dataset), seeds=[seed], options=SHORT, out=tmp_path, quiet=True).rows[-1].figures["recall@10"].mean
        for seed in (0, 1)
    ]
    both = compare(str(dataset), seeds=[0, 1], options=SHORT, out=tmp_path, quiet=True).rows[-1]
    assert both.figures["recall@10"].mean == pytest.approx(sum(single) / 2)


def test_reference_and_metric_may_be_chosen(dataset: Path, tmp_path: Path) -> None:
    table = compare(
        str(dataset), ["InductiveKGAT", "ease"], seeds=[0], versus="popularity", options=SHORT, out=tmp_path, quiet=True
    )
    assert table.reference == "Popularity"
    assert [row.model for row in table.rows] == ["Popularity", "InductiveKGAT", "EASE"]
    with pytest.raises(ConfigError, match="metric must be one with a value a user"):
        compare(str(dataset), seeds=[0], metric="coverage@10", options=SHORT, out=tmp_path)
    with pytest.raises(ConfigError, match=r"metric must be one of 'recall@10', got 'recall@20'"):
        compare(str(dataset), seeds=[0], metric="recall@20", options=SHORT, out=tmp_path)
    with pytest.raises(ConfigError, match="versus must be one of the compared models"):
        compare(str(dataset), ["EASE"], versus="InductiveKGAT", options=SHORT, out=tmp_path)


def test_where_epochs_are_selected_by_a_metric_without_a_value_a_user_another_is_tested(
    dataset: Path, tmp_path: Path
) -> None:
    options = ["--train.epochs=1", "--train.select_by=ctr_auc", "--eval.metrics=ctr_auc,ctr_f1,auc,recall@10"]
    table = compare(str(dataset), seeds=[0, 1], options=options, out=tmp_path, quiet=True)
    assert table.tested == "auc"
    assert table.metrics == ("ctr_auc", "ctr_f1", "auc", "recall@10")
    assert [row.p_value is None for row in table.rows] == [False, False, True]
    clicks = table.rows[-1].figures["ctr_auc"]
    assert clicks.low is not None
    assert 0 <= clicks.mean <= 1
    with pytest.raises(ConfigError, match="metric must be one with a value a user"):
        compare(str(dataset), seeds=[0], metric="ctr_auc", options=options, out=tmp_path)


def test_without_a_test_part_validation_is_compared(dataset: Path, tmp_path: Path) -> None:
    graph = planted(num_users=30, num_items=40, num_cold_items=4)
    codes = graph.interactions.split
    assert codes is not None
    graph = graph.with_split(codes.clip(max=1))
    table = compare(str(dataset), seeds=[0], options=SHORT, out=tmp_path, graph=graph, quiet=True)
    assert table.part == "valid"
    assert all(row.figures["recall@10"].mean >= 0 for row in table.rows)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"models": ["KGAT2"]}, ConfigError, "model must be one of"),
        ({"models": []}, ArgumentError, "at least one model"),
        ({"seeds": []}, ArgumentError, "at least one seed"),
        ({"kg": []}, ArgumentError, "kg must hold at least one"),
        ({"kg": ["ful"]}, ArgumentError, "did you mean 'full'"),
        ({"options": ["--train.epoch", "1"]}, ConfigError, "did you mean 'train.epochs'"),
        ({"options": ["--seed", "1"]}, ConfigError, "a comparison takes seeds"),
    ],
)
def test_wrong_questions_are_refused(
    dataset: Path, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare(str(dataset), out=tmp_path, **arguments)


def test_committed_configurations_must_agree_on_the_data(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (configs / "films").mkdir()
    for model, seed in (("InductiveKGAT", 1), ("EASE", 2)):
        text = yaml.safe_dump({"data": {"seed": seed}, "model": model})
        (configs / "films" / f"{model.lower()}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"configurations of \w+ and \w+ differ in data"):
        compare("films", ["EASE", "InductiveKGAT"], out=tmp_path)


def test_models_that_need_a_graph_have_no_row_without_and_what_draws_has_all_seeds(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODELS["InductiveKGAT"], "needs_kg", True)
    monkeypatch.setattr(MODELS["EASE"], "random", True)
    table = compare(
        str(dataset), ["inductive-kgat"], seeds=[0, 1], kg=["full", "none"], options=SHORT, out=tmp_path, quiet=True
    )
    assert labels(table) == [("Popularity", 1), ("EASE", 2), ("InductiveKGAT, with KG", 2)]


def test_models_that_read_the_knowledge_graph_take_triples() -> None:
    assert reads_kg("InductiveKGAT")
    assert not reads_kg("EASE")


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
    with pytest.raises(RunError, match="refit-true was refitted on the validation part.*--train.refit false"):
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
