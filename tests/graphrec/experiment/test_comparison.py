from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cases.toy_models import ToyKGAT

from graphrec.errors import ArgumentError, ConfigError
from graphrec.experiment import RunFolder, compare
from graphrec.experiment.report import Table
from graphrec.models import MODELS
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


def test_without_triples_there_is_nothing_to_shuffle(tmp_path: Path) -> None:
    shop = planted().without_kg()
    with pytest.raises(ConfigError, match=r"kg must be 'full' for 'planted', .* no triples, got 'full', 'shuffled'"):
        compare("planted", ["InductiveKGAT"], kg=["full", "shuffled"], out=tmp_path, graph=shop)


def test_the_kg_is_chosen_for_all_rows_at_once(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data.kg is for one run; a comparison takes kg"):
        compare(str(dataset), options=["--data.kg", "none"], out=tmp_path, quiet=True)


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
    # Also where a configuration would train on both parts at once.
    options = [*SHORT, "--train.select=false"]
    again = compare(str(dataset), seeds=[0], options=options, out=tmp_path / "at-once", graph=graph, quiet=True)
    assert [row.figures for row in again.rows] == [row.figures for row in table.rows]


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
        ({"options": ["--model", "EASE"]}, ConfigError, "--model is for one run; a comparison takes models"),
        ({"options": ["--model.name=EASE"]}, ConfigError, "--model is for one run; a comparison takes models"),
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
    with pytest.raises(ConfigError, match="InductiveKGAT cannot do without a knowledge graph"):
        compare(str(dataset), ["inductive-kgat"], kg=["none"], options=SHORT, out=tmp_path, quiet=True)


def test_models_of_content_have_no_row_without_a_graph_that_is_their_only_content(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODELS["InductiveKGAT"], "needs_content", True)
    table = compare(
        str(dataset), ["inductive-kgat"], seeds=[0], kg=["full", "none"], options=SHORT, out=tmp_path, quiet=True
    )
    assert labels(table) == [("Popularity", 1), ("EASE", 1), ("InductiveKGAT, with KG", 1)]
