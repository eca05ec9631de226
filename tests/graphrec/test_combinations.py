"""Every command on models of several options at once, as the command line makes them: no toy stands in for a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases.graphs import with_attributes, with_content

from graphrec.cli import main
from graphrec.serving.live import LiveRecommender
from graphrec.serving.store import Event, Store
from kg_loaders.formats import tables
from kg_loaders.synthetic import planted

SEQUENCE = ("--model.sequence=1", "--model.max_length=20")
HEAD = ("--model.head=mlp", "--model.side_features=[age]")
PRIOR = ("--model.popularity_prior=4",)
CONTENT = ("--model.modalities=[image, audio]",)
EASE = ("--model.l2=10",)
# What is trained, and by which methods it can be explained besides leave-one-out.
COMBINATIONS = {
    "order": ("InductiveKGAT", SEQUENCE, {"contributions", "attention"}),
    "order, head, prior": ("InductiveKGAT", (*SEQUENCE, *HEAD, *PRIOR), {"attention"}),
    "order, content": ("InductiveKGAT", (*SEQUENCE, *CONTENT), {"contributions", "attention"}),
    "head, content, prior": ("InductiveKGAT", (*HEAD, *CONTENT, *PRIOR), {"attention"}),
    "match, content, prior": (
        "InductiveKGAT",
        ("--model.match_temperature=0.1", *CONTENT, *PRIOR),
        {"contributions", "attention"},
    ),
    "blend of order": ("Blend", (*EASE, *SEQUENCE), set()),
    "blend of order, match, content, prior": (
        "Blend",
        (*EASE, "--model.match_temperature=0.1", "--model.content_weight=1", *SEQUENCE, *CONTENT, *PRIOR),
        set(),
    ),
    "blend of members, content": ("Blend", ("--model.l2=0", "--model.members=3", *CONTENT), set()),
    "blend of order, head": ("Blend", (*EASE, *SEQUENCE, *HEAD), set()),
    "SASRec": ("SASRec", ("--model.max_length=20",), set()),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    graph = with_attributes(with_content(planted(num_users=80, num_items=40, num_cold_items=4)))
    folder = tmp_path_factory.mktemp("data") / "films"
    tables.write(graph, folder, ".parquet")
    return str(folder)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_command_works(
    name: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    model, options, methods = COMBINATIONS[name]
    run = str(tmp_path / "run")

    def said(*argv: str, code: int = 0) -> Any:
        capsys.readouterr()
        ended = main([*argv, "--json"])
        out, err = capsys.readouterr()
        assert ended == code, err
        return json.loads(out) if ended == 0 else err

    settings = ("--model", model, "--model.dim=8", *options, "--train.epochs=1")
    said("train", dataset, *settings, "--out", run)
    assert said("evaluate", run)
    said("train", dataset, *settings, "--seed=1", "--out", f"{run}-of-seed-1")
    assert said("compare", run, f"{run}-of-seed-1")
    for who in (("--user", "user-03"), ("--history", "item 3", "--history", "item 4")):
        assert said("recommend", run, *who, "-k", "3")
        for method in ("leave-one-out", "contributions", "attention"):
            works = method == "leave-one-out" or method in methods
            asked = ("explain", run, *who, "--item", "item-09", "--method", method)
            found = said(*asked, "--picture", str(tmp_path / "why.svg"), code=0 if works else 2)
            if works:
                assert found["sentences"]
            else:
                assert f"method for {model} must be one of" in found
    said("recommend", run, "--all-users", "-k", "3", "--output", str(tmp_path / "top.tsv"))
    assert (tmp_path / "top.tsv").read_text()
    with Store(tmp_path / "live.sqlite") as store:
        live = LiveRecommender.load(run, store)
        live.add_events([Event("somebody new", "item-03")])
        assert len(live.recommend(user_id="somebody new", k=3)) == 3
        assert live.explain("item-09", user_id="user-03").sentences
