import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import kg_loaders
from graphrec.cli import main
from graphrec.errors import ArgumentError, ConfigError, RunError
from graphrec.experiment import transfer_comparison
from graphrec.experiment.transfer import COMPARATORS, SETTINGS, TransferStudy, cold_split
from graphrec.experiment.transfer_comparison import LABELS, _Run, compare_transfer, run_transfer
from graphrec.histories import Histories
from graphrec.models import EASE, FBSM, Blend, CrossDomainKGAT, DualEASE, InductiveKGAT, Popularity
from graphrec.training import TrainConfig, Trainer
from kg_loaders import SPLITS, Feature, Interactions, RecGraph, Vocabulary
from kg_loaders.synthetic import planted

TRAIN = TrainConfig(epochs=2, batch_size=64, learning_rate=0.01, select_by="ndcg@10")
OPTIONS = {"dim": 8, "num_negatives": 60}


def linked(on="user", **rest):
    """Two planted domains, items of the source renamed; users of equal ids and all entities are the same."""
    source, target = planted(num_users=90, seed=1), planted(num_users=60, num_items=100, seed=2)
    own = [f"source-{id_}" for id_ in source.items]
    source = replace(
        source, entities=kg_loaders.Vocabulary([*own, *source.entities.ids[source.num_items :]], "entity"), name="far"
    )
    return kg_loaders.link(source, target, on=on, **rest)


def with_shared_items():
    """Two planted domains with a part of their items in common, and no user."""
    return kg_loaders.link(planted(num_users=90, seed=1), planted(num_users=60, num_items=60), on="item", by="label")


def test_every_setting_has_a_label():
    assert list(LABELS) == [*SETTINGS, *COMPARATORS]


@pytest.mark.parametrize("setting", [*SETTINGS, *COMPARATORS])
def test_every_setting_is_measured_on_the_target_with_its_items_alone(setting):
    if setting in ("cmf", "emcdr", "ptupcdr"):
        pytest.importorskip("implicit", reason="the baselines extra is not installed")
    pair = with_shared_items() if setting in ("ease-source", "zero-shot+ease") else linked()
    study = TransferStudy(pair, TRAIN, OPTIONS)
    fitted = study.fit(setting)
    found = study.evaluator().evaluate(fitted.model, fitted.graph, split="test")
    wanted = np.unique(pair.target.part("test").user)
    assert found.users.tolist() == wanted.tolist()
    assert fitted.graph is (pair.target if fitted.model.num_items == pair.target.num_items else pair.union)
    assert not fitted.model.training


def test_zero_shot_learns_of_no_target_pair_and_fine_tuning_of_no_stranger():
    pair = linked()
    study = TransferStudy(pair, TRAIN, OPTIONS)
    before = study.fit("zero-shot").model
    assert isinstance(before, CrossDomainKGAT)
    assert not before.taken[: pair.target.num_items].any()
    tuned = study.fit("fine-tuned").model
    trained = torch.from_numpy(np.unique(pair.target.part("train", "valid").item))
    assert tuned.taken[trained].all()
    frozen = study.fit("frozen-items").model
    assert torch.equal(frozen.item, before.item)
    assert isinstance(study.fit("target-only").model, InductiveKGAT)


def test_common_items_tell_strangers_of_the_source_what_goes_with_what():
    pair = with_shared_items()
    study = TransferStudy(pair, TRAIN, OPTIONS, ease={"relax": 0.3})
    alone, both = study.fit("ease-source"), study.fit("zero-shot+ease")
    assert isinstance(both.model, Blend)
    torch.testing.assert_close(both.model.second.weight, alone.model.weight)
    assert alone.model.relax == 0.3
    assert alone.graph is both.graph is pair.union
    other = replace(pair.target, interactions=pair.target.interactions[pair.target.interactions.split == 2])
    blind = TransferStudy(
        kg_loaders.link(pair.source, other, on="item", by="label"), TRAIN, OPTIONS, ease={"relax": 0.3}
    )
    torch.testing.assert_close(blind.fit("ease-source").model.weight, alone.model.weight)  # nothing of the target
    evaluator = study.evaluator(["ndcg@10"])
    charts = study.fit("popularity")
    lowest = evaluator.evaluate(charts.model, charts.graph, split="test").metrics["ndcg@10"]
    assert evaluator.evaluate(alone.model, alone.graph, split="test").metrics["ndcg@10"] > lowest


def test_without_common_items_the_source_teaches_ease_nothing():
    for setting in ("ease-source", "zero-shot+ease"):
        with pytest.raises(ArgumentError, match="shares no items"):
            TransferStudy(linked(), TRAIN, OPTIONS).fit(setting)


def test_content_alone_carries_tastes_to_items_that_nobody_took():
    pair = linked("entity")
    study = TransferStudy(pair, TRAIN, OPTIONS)
    fitted = study.fit("fbsm-source")
    assert isinstance(fitted.model, FBSM)
    assert fitted.graph is pair.union
    blank = replace(
        pair.target, interactions=pair.target.interactions[pair.target.interactions.split == SPLITS.index("test")]
    )
    blind = TransferStudy(kg_loaders.link(pair.source, blank, on="entity"), TRAIN, OPTIONS).fit("fbsm-source")
    torch.testing.assert_close(fitted.model.weight, blind.model.weight)  # no pair of the target was learned from
    found = study.evaluator().evaluate(fitted.model, fitted.graph, split="test").metrics["ndcg@10"]
    lot = Popularity.from_graph(pair.target)
    lot.fit(Histories.from_lists([[]]))
    assert found > 1.5 * study.evaluator().evaluate(lot, pair.target, split="test").metrics["ndcg@10"]


def test_what_content_learns_is_chosen_among_items_that_nobody_took(monkeypatch):
    seen = []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, *rest: seen.append(rest) or fit(self, *rest))
    TransferStudy(linked("entity"), TRAIN, OPTIONS).fit("fbsm-source")
    [(_, graph, evaluator)] = seen
    assert list(evaluator.candidates) == np.unique(graph.part("valid").item).tolist()
    assert not np.isin(graph.part("train").item, evaluator.candidates).any()


def test_one_seed_gives_one_result_whatever_was_fitted_before():
    pair = linked()
    alone = TransferStudy(pair, TRAIN, OPTIONS).fit("joint", seed=3).model.state_dict()
    study = TransferStudy(pair, TRAIN, OPTIONS)
    study.fit("zero-shot", seed=1)
    for name, value in study.fit("joint", seed=3).model.state_dict().items():
        assert torch.equal(alone[name], value), name


def test_nothing_shared_cannot_be_transferred():
    pair = linked()
    bare = kg_loaders.link(pair.source.without_kg(), pair.target.without_kg(), on="user")
    with pytest.raises(ArgumentError, match="shares neither items nor a knowledge graph"):
        TransferStudy(bare, TRAIN, OPTIONS).fit("zero-shot")
    with pytest.raises(ArgumentError, match="'content-knn': 'planted' has no knowledge graph"):
        TransferStudy(bare, TRAIN, OPTIONS).fit("content-knn")
    with pytest.raises(ArgumentError, match=r"'fbsm-source': '.*' has no knowledge graph, and no modalities are named"):
        TransferStudy(bare, TRAIN, OPTIONS).fit("fbsm-source")
    with pytest.raises(ArgumentError, match="'emcdr' for a pair that shares no users"):
        TransferStudy(linked("entity"), TRAIN, OPTIONS).fit("emcdr")


def test_the_table_has_popularity_and_ease_and_tests_against_the_last_setting(tmp_path):
    table = compare_transfer(
        linked(), ["target-only", "joint"], seeds=[0, 1], train=TRAIN, options=OPTIONS, out=tmp_path, quiet=True
    )
    labels = [row.label for row in table.rows]
    assert labels == [LABELS[name] for name in ("popularity", "ease", "ease-union", "target-only", "joint")]
    assert [row.seeds for row in table.rows] == [(0,), (0,), (0,), (0, 1), (0, 1)]
    assert table.reference == LABELS["joint"]
    assert [row.p_value is None for row in table.rows] == [False] * 4 + [True]
    for row in table.rows:
        for figure in row.figures.values():
            assert 0 <= figure.low <= figure.mean <= figure.high <= 1
    assert (tmp_path / "table.md").is_file()


def test_what_reads_the_kg_has_a_row_for_each_part_of_it(monkeypatch):
    seen = []
    fit = Trainer.fit

    def spy(self, model, graph, *rest):
        seen.append((type(model).__name__, graph))
        return fit(self, model, graph, *rest)

    monkeypatch.setattr(Trainer, "fit", spy)
    pair = linked()
    table = compare_transfer(
        pair,
        ["target-only", "joint"],
        ["content-knn"],
        seeds=[0],
        train=TRAIN,
        options=OPTIONS,
        kg=["full", "none", "shuffled"],
        quiet=True,
    )
    rows = [(row.model, row.kg) for row in table.rows]
    assert rows == [
        *((LABELS[name], "") for name in ("popularity", "ease", "ease-union")),
        *((LABELS["content-knn"], kg) for kg in ("full", "shuffled")),
        *((LABELS[name], kg) for name in ("target-only", "joint") for kg in ("full", "none", "shuffled")),
    ]
    assert table.reference == f"{LABELS['joint']}, with KG"
    joint = [graph for model, graph in seen if model == "CrossDomainKGAT"]
    alone = [graph for model, graph in seen if model == "InductiveKGAT"]
    assert joint == [pair.union, pair.without_kg().union, pair.shuffled_kg(0).union]
    assert alone == [pair.target, pair.target.without_kg(), pair.target.shuffled_kg(0)]


def test_one_part_of_the_kg_is_read_by_all(monkeypatch):
    table = compare_transfer(
        linked(), ["joint"], ["content-knn"], seeds=[0], train=TRAIN, options=OPTIONS, kg=["none"], quiet=True
    )
    assert [(row.model, row.kg) for row in table.rows][-1] == (LABELS["joint"], "none")
    assert LABELS["content-knn"] not in [row.model for row in table.rows]
    with pytest.raises(ArgumentError, match="'content-knn' cannot do without a knowledge graph"):
        compare_transfer(linked(), ["joint"], ["content-knn"], seeds=[0], kg=["none"], versus="content-knn", quiet=True)


def test_what_only_the_kg_carries_over_has_no_row_without_it(monkeypatch):
    monkeypatch.setattr(transfer_comparison, "_run", lambda study, *_: _Run({"ndcg@10": torch.ones(60)}, 0.0, 0.0))
    options = {"seeds": [0], "metrics": ["ndcg@10"], "kg": ["none", "full"], "quiet": True}
    settings = ["zero-shot", "zero-shot+ease", "fine-tuned", "frozen-items", "joint"]
    apart = compare_transfer(linked("entity"), settings, **options).rows[3:]  # behind the three that are always there
    common = compare_transfer(with_shared_items(), settings, **options).rows[3:]
    assert [row.kg for row in apart] == ["full"] * 4 + ["none", "full"]
    assert [row.kg for row in common] == ["none", "full"] * 5


@pytest.mark.parametrize(
    ("kg", "message"),
    [
        ([], "got none"),
        (["half"], "kg must be one of .*'half'"),
        (["none"], r"kg must be 'full' for '.*', which has no triples"),
    ],
)
def test_a_wrong_part_of_the_kg_is_named(kg, message):
    pair = linked().without_kg() if kg == ["none"] else linked()
    with pytest.raises(ArgumentError, match=message):
        compare_transfer(pair, ["joint"], kg=kg, quiet=True)


def shop(name, num_users, together):
    """Users who take whole threes of 60 items, or as many items at random; the last of each user is held out."""
    draw = np.random.default_rng(num_users)
    threes = [3 * draw.choice(20, 3, replace=False) for _ in range(num_users)]
    items = [
        np.concatenate([three + i for i in draw.permutation(3)]) if together else draw.choice(60, 9, replace=False)
        for three in threes
    ]
    order = [np.argsort(of_user) for of_user in items]
    split = np.tile([0] * 7 + [1, 2], (num_users, 1))
    return RecGraph(
        users=Vocabulary([f"{name} {number}" for number in range(num_users)], "user"),
        entities=Vocabulary([f"item {number}" for number in range(60)], "entity"),
        num_items=60,
        interactions=Interactions(
            np.repeat(np.arange(num_users), 9),
            np.concatenate([of_user[by] for of_user, by in zip(items, order, strict=True)]),
            split=np.take_along_axis(split, np.stack(order), axis=1).ravel().astype(np.int8),
        ),
        name=name,
    )


def test_a_source_of_other_tastes_is_let_say_little_and_one_of_the_same_much():
    target = shop("target", 30, together=True)
    chosen = {}
    for name, together in (("same", True), ("random", False)):
        pair = kg_loaders.link(shop(name, 400, together), target, on="item")
        study = TransferStudy(pair, replace(TRAIN, refit=False), OPTIONS)
        model = study.fit("ease-weighted").model
        chosen[name] = model.user_weights.min().item() if model.user_weights is not None else 1.0
        blend = study.fit("joint+ease").model
        assert blend.second.l2 == model.l2
        torch.testing.assert_close(blend.second.user_weights, model.user_weights)
        values = [
            study.evaluator().evaluate(fitted.model, fitted.graph, split="valid").metrics["ndcg@10"]
            for fitted in map(study.fit, ("ease-weighted", "ease-union"))
        ]
        assert values[0] >= values[1]
    assert chosen["same"] >= 0.3 > 0.1 >= chosen["random"]


def test_beside_a_blend_stands_the_closed_form_in_it():
    table = compare_transfer(linked(), ["joint+ease"], seeds=[0], train=TRAIN, options=OPTIONS, quiet=True)
    names = ("popularity", "ease", "ease-union", "ease-weighted", "joint+ease")
    assert [row.label for row in table.rows] == [LABELS[name] for name in names]


def test_finished_runs_are_taken_as_they_are(tmp_path, monkeypatch):
    options = {"seeds": [0], "train": TRAIN, "options": OPTIONS, "out": tmp_path, "quiet": True}
    first = compare_transfer(linked(), ["joint"], **options)
    monkeypatch.setattr(TransferStudy, "fit", lambda *_: pytest.fail("nothing is left to fit"))
    assert compare_transfer(linked(), ["joint"], **options).to_csv() == first.to_csv()


def test_a_run_with_other_options_of_its_closed_form_is_another(tmp_path):
    options = {"seeds": [0], "train": TRAIN, "options": OPTIONS, "out": tmp_path, "quiet": True}
    for relax in (0.0, 0.3):
        compare_transfer(with_shared_items(), ["zero-shot+ease"], ["ease-source"], ease={"relax": relax}, **options)
    kept = Counter(path.name.split("-seed")[0] for path in tmp_path.glob("*.json"))
    assert kept == {"popularity": 1, "ease": 1, "ease-union": 1, "ease-source": 2, "zero-shotease": 2}


def test_a_run_of_another_source_is_another_even_where_the_union_is_the_same(tmp_path):
    options = {"seeds": [0], "train": TRAIN, "options": OPTIONS, "quiet": True}
    source, target = planted(num_users=90, seed=1), planted(num_users=60, num_items=60)
    pair = kg_loaders.link(source, target, on="item", by="label", same_users=True)
    apart = np.ones(len(source.interactions), dtype=bool)
    apart[pair.source_rows[pair.from_target & (pair.source_rows >= 0)]] = False  # not what the target has too
    less = replace(source, interactions=source.interactions[apart])
    other = kg_loaders.link(less, target, on="item", by="label", same_users=True)
    assert other.union == pair.union
    alone = compare_transfer(other, ["joint"], ["ease-source"], out=tmp_path / "alone", **options)
    first = compare_transfer(pair, ["joint"], ["ease-source"], out=tmp_path / "both", **options)
    after = compare_transfer(other, ["joint"], ["ease-source"], out=tmp_path / "both", **options)
    figures = [[row.figures for row in table.rows] for table in (alone, first, after)]
    assert figures[2] == figures[0] != figures[1]


def test_wrong_arguments_are_named():
    pair = linked()
    with pytest.raises(ArgumentError, match="settings must be one of .*, got 'jiont'; did you mean 'joint'"):
        compare_transfer(pair, ["jiont"])
    with pytest.raises(ArgumentError, match="versus must be one of"):
        compare_transfer(pair, ["joint"], versus="zero-shot")
    with pytest.raises(ArgumentError, match="at least one seed"):
        compare_transfer(pair, ["joint"], seeds=[])
    with pytest.raises(ArgumentError, match="setting must be one of"):
        TransferStudy(pair).fit("together")


def test_cold_users_are_served_by_what_they_took_in_the_source():
    """Target users without a target history: the joint model knows their genre from the source."""
    pair = linked()
    cold = np.arange(0, pair.target.num_users, 3)
    train = replace(TRAIN, epochs=40, batch_size=16, patience=0, eval_every=10)
    study = TransferStudy(pair.without_history(cold), train, {**OPTIONS, "dim": 16, "target_dropout": 0.3})
    fitted = study.fit("joint")
    histories = Histories.from_interactions(fitted.graph.part("train", "valid"), fitted.graph.num_users)
    past = histories.select(torch.from_numpy(cold))
    with torch.no_grad():
        best = fitted.model.score(past)[:, : pair.target.num_items].topk(5).indices
        shares = fitted.model.domain_attention(past)
    assert torch.equal(shares[:, 0], torch.zeros(len(cold)))
    right = best % 4 == torch.from_numpy(cold)[:, None] % 4  # the genre of an item, the taste of a user
    assert right.float().mean() > 0.75  # chance is 0.25


def test_a_cold_split_hides_histories_and_selects_for_users_like_them():
    pair = linked()
    chilled, cold = cold_split(pair, 0.25, seed=1)
    target = chilled.target
    assert len(cold) == 15
    assert not np.isin(target.part("train", "valid").user, cold).any()
    assert len(target.part("test")) == len(pair.target.part("test"))
    helpers = np.setdiff1d(np.arange(target.num_users), np.union1d(cold, target.part("train").user))
    assert len(helpers) == 15
    mine = np.isin(pair.target.interactions.user, helpers)
    told = np.isin(target.part("valid").user, helpers).sum() + np.isin(target.part("test").user, helpers).sum()
    assert told == mine.sum()
    assert np.array_equal(cold_split(pair, 0.25, seed=1)[1], cold)
    for share in (0, 1.0):
        with pytest.raises(ArgumentError, match="share of cold users must be above 0 and below 1"):
            cold_split(pair, share)
    with pytest.raises(ArgumentError, match="the 0 test users that 'far' and 'planted' have in common is nobody"):
        cold_split(linked("entity"), 0.5)


def test_a_cold_user_has_a_history_in_the_source():
    pair = linked()
    late = pair.source.interactions.user >= 45  # the others are known to the source by name alone
    few = replace(pair.source, interactions=pair.source.interactions[late])
    _, cold = cold_split(kg_loaders.link(few, pair.target, on="user"), 0.5)
    assert len(cold) == 8  # of users 45 to 59
    assert (cold >= 45).all()
    source, target = planted(num_users=60, num_items=60, seed=1), planted(num_users=60, num_items=60)
    of_test = target.part("test")
    only_asked = replace(source, interactions=Interactions(of_test.user, of_test.item))  # nothing that it may tell
    with pytest.raises(ArgumentError, match="of the 0 test users"):
        cold_split(kg_loaders.link(only_asked, target, on="item", same_users=True), 0.5)


def test_the_table_of_cold_users_tells_the_others_apart():
    pair, cold = cold_split(linked(), 0.3)
    table = compare_transfer(pair, ["joint"], seeds=[0], train=TRAIN, options=OPTIONS, cold=cold, quiet=True)
    assert table.metrics[-1] == "ndcg@10, others"
    study = TransferStudy(pair, TRAIN, OPTIONS)
    fitted = study.fit("popularity")
    found = study.evaluator().evaluate(fitted.model, fitted.graph, split="test")
    values, is_cold = found.per_user["ndcg@10"], np.isin(found.users.numpy(), cold)
    popular = table.rows[0].figures
    assert popular["ndcg@10"].mean == pytest.approx(values[is_cold].mean().item())
    assert popular["ndcg@10, others"].mean == pytest.approx(values[~is_cold].mean().item())


def load_by_name(graphs, monkeypatch):
    for home in ("kg_loaders.registry.load", "graphrec.experiment.data.load"):
        monkeypatch.setattr(home, lambda name, *_, **__: graphs[name])


def test_the_command_prints_the_table(tmp_path, capsys, monkeypatch):
    graphs = {"far": linked().source, "near": planted(num_users=60, num_items=100, seed=2)}
    load_by_name(graphs, monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = ["transfer", "far", "near", "--on", "user", "--settings", "joint", "--seeds", "1", "--model.dim", "8"]
    assert main([*words, "--train.epochs", "1", "--out", str(tmp_path / "out"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in table["rows"]][-1] == LABELS["joint"]
    assert table["data"] == "far -> planted"
    assert main([*words, "--train.epochs", "1", "--cold-share", "0.2", "--out", str(tmp_path / "cold")]) == 0
    assert "users without a history there" in capsys.readouterr().out
    assert main([*words, "--train.epochs", "1", "--kg", "none,full", "--out", str(tmp_path / "kg"), "--json"]) == 0
    printed = capsys.readouterr()
    rows = [(row["model"], row["kg"]) for row in json.loads(printed.out)["rows"]]
    assert rows[-2:] == [(LABELS["joint"], "none"), (LABELS["joint"], "full")]
    assert "run 4 of 5: joint, no KG, seed 0" in printed.err


def test_what_a_committed_configuration_asks_of_one_domain_alone_is_left_out_and_said(tmp_path, capsys, monkeypatch):
    graphs = {"ml-1m": linked().source, "ml-100k": planted(num_users=60, num_items=100, seed=2)}
    load_by_name(graphs, monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = ["ml-1m", "ml-100k", "--on", "user", "--settings", "joint,joint+ease", "--seeds", "1", "--model.dim", "8"]
    words += ["--train.epochs", "1", "--train.eval_every", "1", "--model.relax", "0.3", "--model.input_dropout", "0.2"]
    seen = []
    fit = TransferStudy.fit
    monkeypatch.setattr(TransferStudy, "fit", lambda study, *rest: seen.append(fit(study, *rest)) or seen[-1])
    assert main(["transfer", *words]) == 0
    said = capsys.readouterr()
    assert "popularity_prior=16.0 of ml-100k's configuration is left out: CrossDomainKGAT has none" in said.err
    assert LABELS["joint+ease"] in said.out
    plain = [fitted.model for fitted in seen if isinstance(fitted.model, EASE | DualEASE)]
    assert [(model.relax, model.input_dropout) for model in plain] == [(0.0, 0.0), (0.0, 0.0), (0.3, 0.2)]
    assert seen[-1].model.second.relax == 0.3
    with pytest.raises(ConfigError, match="--model.popularity_prior is not for a transfer: CrossDomainKGAT has none"):
        run_transfer("ml-1m", "ml-100k", {"on": "user"}, ["--model.popularity_prior", "3"])


def test_every_setting_of_a_transfer_selects(tmp_path, monkeypatch):
    graphs = {"far": linked().source, "near": planted(num_users=60, num_items=100, seed=2)}
    load_by_name(graphs, monkeypatch)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "inductive_kgat.yaml").write_text("model: {name: InductiveKGAT}\ntrain: {select: false}\n")
    monkeypatch.setattr("graphrec.experiment.catalogue.configs_root", lambda: tmp_path)
    given = {}
    monkeypatch.setattr(transfer_comparison, "compare_transfer", lambda pair, **rest: given.update(rest))
    run_transfer("far", "near", {"on": "user"}, [])
    assert given["train"].select
    with pytest.raises(ConfigError, match="--train.select is for one run; every setting of a transfer selects"):
        run_transfer("ml-1m", "ml-100k", {"on": "user"}, ["--train.select", "false"])
    with pytest.raises(ArgumentError, match="train.select must be true in a transfer"):
        TransferStudy(linked(), replace(TRAIN, select=False), OPTIONS)
    with pytest.raises(ArgumentError, match="train.select must be true in a transfer"):
        TransferStudy(linked(), TRAIN, OPTIONS, trains={"light-gcn": replace(TRAIN, select=False)})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["far"], "transfer takes two data sets, a source and a target, got far"),
        (["far", "near"], "transfer needs --on"),
        (["far", "near", "--on", "user", "--settings", "jiont"], "got 'jiont'; did you mean 'joint'"),
        (["far", "near", "--on", "user", "--threshold", "x"], "--threshold must be a number, got 'x'"),
    ],
)
def test_wrong_usage_is_one_line(words, message, capsys, monkeypatch):
    graphs = {"far": linked().source, "near": planted(num_users=60, num_items=100, seed=2)}
    load_by_name(graphs, monkeypatch)
    assert main(["transfer", *words]) in (1, 2)
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_shop_that_lists_the_target_again_is_a_problem_and_can_be_left_out(tmp_path, capsys, monkeypatch):
    near = planted(num_users=60, num_items=100, seed=2)
    again = [f"again-{id_}" for id_ in near.items]
    entities = kg_loaders.Vocabulary([*again, *near.entities.ids[near.num_items :]], "entity")
    load_by_name({"again": replace(near, entities=entities, name="again"), "near": near}, monkeypatch)
    words = ["transfer", "again", "near", "--on", "user", "--settings", "joint", "--seeds", "1", "--model.dim", "8"]
    words += ["--train.epochs", "1", "--json"]

    def figures(*more, folder):
        assert main([*words, *more, "--out", str(tmp_path / folder)]) == 0
        said = capsys.readouterr()
        rows = {row["model"]: row["figures"]["ndcg@10"][0] for row in json.loads(said.out)["rows"]}
        return said.err, rows[LABELS["ease-union"]]

    said, told = figures(folder="with")
    assert "held-out target pairs told by a twin, of 240; in the source their user took what may be" in said
    said, rest = figures("--without-twins", folder="without")
    assert "problem" not in said
    assert "source pairs of items that are perhaps the target's own" in said
    assert told > rest


def test_a_review_that_was_corrected_is_kept(tmp_path, capsys, monkeypatch):
    near = planted(num_users=60, num_items=60)
    titles = list(near.items)
    near = replace(near, item_features={"title": Feature.text(titles)})
    titles[1] = titles[0]  # two films of one title, and none of the other
    far = replace(planted(num_users=90, num_items=60, seed=1), item_features={"title": Feature.text(titles)})
    load_by_name({"far": far, "near": near}, monkeypatch)
    monkeypatch.setattr(transfer_comparison, "compare_transfer", lambda *_, **__: None)
    linking = {"on": "item", "by": "label", "labels": ["title"], "on_ambiguous": "review"}
    old, new = tmp_path / "review.csv", tmp_path / "review-new.csv"

    run_transfer("far", "near", linking, out=tmp_path)
    found = old.read_bytes()
    assert found.splitlines()[1:] == [
        b"item-00,item-00,item-00,item-00,1.0,equal label,False",
        b"item-01,item-00,item-00,item-00,1.0,equal label,False",
    ]
    run_transfer("far", "near", linking, out=tmp_path)
    assert not new.exists()
    assert "review.csv" not in capsys.readouterr().err

    corrected = b"\r\n".join(found.splitlines()[:2])
    old.write_bytes(corrected)
    run_transfer("far", "near", linking, out=tmp_path)
    assert (old.read_bytes(), new.read_bytes()) == (corrected, found)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"{old} holds other matches, which are kept; those of now are in {new};")
    assert "give it as --map" in said
    pairs = []
    monkeypatch.setattr(transfer_comparison, "compare_transfer", lambda pair, **_: pairs.append(pair))
    run_transfer("far", "near", {**linking, "map": str(old)}, out=tmp_path)
    assert len(pairs[0].shared_items) == 59  # one of the two of one title, and all that were sure
    assert (old.read_bytes(), new.read_bytes()) == (corrected, found)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match=f"could not write {new}"):
        run_transfer("far", "near", linking, out=tmp_path)
    assert new.read_bytes() == found


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_bridge_of_a_seed_is_the_same_whatever_seed_came_first():
    pytest.importorskip("implicit", reason="the baselines extra is not installed")
    target = planted(num_users=40, num_items=120, noise=0.8, activity=0.3, seed=1)
    source = replace(planted(num_users=40, num_items=120, noise=0.6, seed=21), name="far")
    pair = kg_loaders.link(source, target, on="user")
    train = replace(TRAIN, epochs=1)

    def chosen(*seeds):
        study = TransferStudy(pair, train, trains={"emcdr": train})
        return [study.fit("emcdr", seed).model.target.chosen.tolist() for seed in seeds][-1]

    assert chosen(0, 1) == chosen(1)


def test_one_cold_user_is_refused_before_anything_is_trained():
    with pytest.raises(ArgumentError, match="an interval takes two test users, got 1 cold ones and"):
        compare_transfer(linked(), cold=np.array([3]), quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.source_weight", "much"], "source_weight"),
        (["--model.user_prior", "1"], "user_prior"),
        (["--model", "EASE"], "--model is for one run; a transfer takes --settings and --comparators"),
        (["--data.kg", "none"], "--data.kg is for one run; a transfer takes --kg"),
        (["--seed", "7"], "--seed is for one run; a transfer takes --seeds"),
        (["--out=here"], "--out is for one run; a transfer takes out"),
        (["--eval.batch_size", "7"], "--eval.batch_size is for one run; a transfer takes --eval.metrics alone"),
    ],
)
def test_options_are_checked_before_anything_is_read(options, message):
    with pytest.raises(ConfigError, match=message):
        run_transfer("nowhere", "nowhere", {"on": "user"}, options)


def test_metrics_may_be_chosen(tmp_path, monkeypatch):
    near = planted(num_users=60, num_items=100, seed=2)
    load_by_name({"far": linked().source, "near": near}, monkeypatch)
    options = ["--eval.metrics", "recall@50,ndcg@20", "--model.dim", "8", "--train.epochs", "1"]
    table = run_transfer("far", "near", {"on": "user"}, options, settings=["target-only"], seeds=[0], out=tmp_path)
    assert table.metrics == ("recall@50", "ndcg@20", "ndcg@10")  # the last is the one that is tested
