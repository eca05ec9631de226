from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cases.graphs import with_content

from graphrec.experiment import RunFolder, compare
from graphrec.experiment.ablation import ablations
from graphrec.experiment.config import KgName
from graphrec.experiment.data import resolve
from graphrec.experiment.reading import read_options
from graphrec.models import Blend, InductiveKGAT
from kg_loaders.synthetic import planted


@pytest.fixture(autouse=True)
def toy_models() -> None:
    """No toys here: only real models have parts."""


GRAPH = with_content(planted(num_users=30, num_items=40, num_cold_items=4))


def parts(*options: str, needs_content: bool = False) -> list[str]:
    config = resolve(read_options(options, "planted").config, GRAPH)
    return [name for name, _ in ablations(config, GRAPH, reads_kg=True, needs_content=needs_content)]


def test_each_part_that_is_there_is_left_out_once() -> None:
    both = "--model.modalities=[image,audio]"
    assert parts() == ["KG"]
    assert parts(both) == ["KG", "image", "audio", "image and audio"]
    assert parts("--model.co_neighbors=5", "--model.drop_id=0.2") == ["KG", "co-occurrences", "dropped ids"]
    head = ["--model.head=mlp", "--model.side_features=[hour]"]
    assert parts(*head) == ["KG", "side features", "head"]
    like = "--model.like_neighbors=5"
    assert parts("--model.modalities=[image]", like, "--data.kg=none") == ["image", "likeness"]
    assert parts(both, "--data.kg=none") == ["image", "audio", "image and audio"]
    assert parts("--data.kg=none") == []


def test_popularity_is_foretold_as_long_as_there_is_content() -> None:
    def left_on(*options: str) -> dict[str, bool]:
        config = resolve(read_options(["--model.content_popularity=true", *options], "planted").config, GRAPH)
        return {
            name: left.model.options["content_popularity"] for name, left in ablations(config, GRAPH, reads_kg=True)
        }

    assert left_on() == {"KG": False, "foretold popularity": False}
    assert left_on("--model.modalities=[image]") == {"KG": True, "image": True, "foretold popularity": False}
    assert left_on("--model.modalities=[image]", "--data.kg=none") == {"image": False, "foretold popularity": False}


def test_content_models_keep_something_to_go_by() -> None:
    content = ["--model=ContentKNN", "--model.modalities=[image]"]
    assert parts(*content, needs_content=True) == ["KG", "image"]
    assert parts(*content, "--data.kg=none", needs_content=True) == []
    assert parts("--model=ContentKNN", needs_content=True) == []
    both = ["--model=ContentKNN", "--model.modalities=[image,audio]", "--data.kg=none"]
    assert parts(*both, needs_content=True) == ["image", "audio"]


def test_what_is_left_keeps_all_other_settings() -> None:
    config = resolve(read_options(["--model.modalities=[image,audio]", "--model.dim=8"], "planted").config, GRAPH)
    left = dict(ablations(config, GRAPH, reads_kg=True))
    options = {**config.model.options, "modalities": ("audio",)}
    assert left["image"] == replace(config, model=replace(config.model, options=options))
    assert left["KG"].data.kg == "none"
    head = ["--model.head=mlp", "--model.side_features=[hour]"]
    config = resolve(read_options(head, "planted").config, GRAPH)
    left = dict(ablations(config, GRAPH, reads_kg=True))
    assert (left["head"].model.options["head"], left["head"].model.options["side_features"]) == (None, ())
    assert left["side features"].model.options["head"] == "mlp"
    assert left["side features"].model.options["side_features"] == ()


def test_the_table_tests_each_part_against_the_whole(dataset: Path, tmp_path: Path) -> None:
    options = ["--train.epochs=1", "--train.select_by=recall@10", "--eval.metrics=recall@10"]
    own = ["--model.dim=8", "--model.modalities", "[image]"]
    table = compare(
        str(dataset), seeds=[0], options=[*options, *own], out=tmp_path, graph=GRAPH, quiet=True, ablate=True
    )
    assert [row.label for row in table.rows] == [
        "Popularity",
        "EASE",
        "InductiveKGAT, with KG",
        "InductiveKGAT, without KG",
        "InductiveKGAT, without image",
    ]
    assert table.reference == "InductiveKGAT, with KG"
    assert [row.p_value is None for row in table.rows] == [False, False, True, False, False]
    whole, without_kg, without_image = (RunFolder.open(row.runs[0]) for row in table.rows[2:])
    assert whole.config.model.options["dim"] == 8
    assert without_kg.info.sizes["triples"] == 0
    assert list(without_image.config.model.options["modalities"]) == []
    assert [row["without"] for row in table.to_dict()["rows"]] == ["", "", "", "KG", "image"]
    assert "InductiveKGAT,full,image,,0," in table.to_csv()


def test_models_that_only_draw_ties_have_one_row_a_part(dataset: Path, tmp_path: Path) -> None:
    options = ["--train.select_by=recall@10", "--eval.metrics=recall@10", "--model.modalities=[image]"]
    table = compare(
        str(dataset), ["ContentEASE"], seeds=[0, 1], options=options, out=tmp_path, graph=GRAPH, quiet=True, ablate=True
    )
    assert [(row.label, len(row.seeds)) for row in table.rows[2:]] == [
        ("ContentEASE, with KG", 1),
        ("ContentEASE, without KG", 1),
        ("ContentEASE, without image", 1),
    ]
    with pytest.raises(ValueError, match="model.modalities is not a known setting"):
        compare(str(dataset), ["EASE"], seeds=[0], options=options, out=tmp_path, graph=GRAPH, quiet=True)


def test_order_is_a_part_of_a_blend_and_all_of_a_closed_form() -> None:
    assert parts("--model=Blend", "--model.recency=2", "--model.sequence=1") == [
        "KG",
        "sequence",
        "the closed form's order",
    ]
    assert parts("--model=SLIST", "--model.recency=2", "--data.kg=none") == []


def test_times_are_a_part_of_what_reads_in_order() -> None:
    timed = ["--model.num_time_buckets=8", "--model.request_time=true"]
    order = ["--model=InductiveKGAT", "--model.sequence=1"]
    assert parts("--model=InductiveKGAT", *timed) == ["KG"]
    assert parts(*order, *timed) == ["KG", "sequence", "times", "the time of the request"]
    assert parts(*order, timed[0]) == ["KG", "sequence", "times"]
    assert parts("--model=HSTU", "--data.kg=none", *timed) == ["times", "the time of the request"]
    config = resolve(read_options([*order, *timed], "planted").config, GRAPH)
    for _, left in ablations(config, GRAPH, reads_kg=True):
        InductiveKGAT.from_graph(GRAPH if left.data.kg == "full" else GRAPH.without_kg(), **left.model.options)


def test_members_are_a_part_where_there_are_several() -> None:
    assert parts("--model=Blend", "--model.members=2") == ["KG", "further members"]
    assert parts("--model=Blend", "--model.members=1") == ["KG"]
    matching = ["--model=Blend", "--model.match_temperature=0.1", "--model.match_members=3"]
    assert parts(*matching) == ["KG", "matching", "further members that match"]


def test_a_blend_stays_a_blend_without_a_part() -> None:
    for options in (
        ["l2=0", "match_temperature=0.1"],
        ["l2=5", "content_weight=1", "modalities=[image]"],
        ["l2=5", "recency=2"],
        ["l2=5", "members=2"],
        ["l2=0", "members=2"],
        ["l2=0", "members=2", "match_temperature=0.1"],
        ["l2=5", "match_temperature=0.1", "match_members=2"],
    ):
        config = resolve(read_options(["--model=Blend", *(f"--model.{o}" for o in options)], "planted").config, GRAPH)
        left_over = [left for _, left in ablations(config, GRAPH, reads_kg=True)]
        assert left_over
        for left in left_over:
            Blend.from_graph(GRAPH if left.data.kg == "full" else GRAPH.without_kg(), **left.model.options)


def test_ablations_read_the_part_of_the_kg_that_the_reference_reads(dataset: Path, tmp_path: Path) -> None:
    options = ["--train.epochs=1", "--train.select_by=recall@10", "--model.dim=8", "--model.co_neighbors=4"]
    kg: list[KgName] = ["none", "full"]
    table = compare(str(dataset), ["InductiveKGAT"], [0], kg, options=options, out=tmp_path, quiet=True, ablate=True)
    rows = [(row.kg, row.without) for row in table.rows[2:]]
    assert rows == [("none", ""), ("full", ""), ("none", "co-occurrences")]
