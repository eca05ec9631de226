"""Every committed configuration loads, belongs where it lies, and trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cases.graphs import with_content

from graphrec.experiment.catalogue import committed_files, configs_root, find_committed, read_yaml
from graphrec.experiment.config import RunConfig, simplified
from graphrec.experiment.reading import read_options
from graphrec.experiment.runner import run
from kg_loaders import RecGraph, Vocabulary
from kg_loaders.benchmarks import BENCHMARKS
from kg_loaders.synthetic import planted

FILES = committed_files()
NAMES = [str(path.relative_to(configs_root())) for path in FILES]


def planted_for(config: RunConfig) -> RecGraph:
    """A planted graph with pictures, sounds, encoded text, the relations that are named, and the split's parts."""
    graph = with_content(planted(num_users=30, num_items=40, num_cold_items=4))
    features = {**graph.item_features, "text": graph.item_features["image"]}
    named = config.model.options.get("kg_relations", ())
    relations = Vocabulary([*named, *graph.relations.ids[len(named) :]], "relation")
    graph = replace(graph, item_features=features, relations=relations)
    codes = graph.interactions.split
    assert codes is not None
    if config.data.split == "given":
        return graph
    if config.data.split == "carve":  # there must be no validation part yet
        return graph.with_split(codes // 2 * 2)
    return graph.with_split(None)


def test_there_are_configurations() -> None:
    assert FILES
    assert all(path.suffix == ".yaml" for path in configs_root().rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_it_lies_where_it_is_looked_for(path: Path) -> None:
    config = read_options(["--config", str(path)]).config
    assert path.parent.name in BENCHMARKS
    assert config.data.name == path.parent.name
    assert simplified(path.stem) == simplified(config.model.name)
    assert find_committed(config.data.name, config.model.name) == path
    assert config.data.split is not None, "a committed configuration says how it splits"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_it_splits_and_measures_like_its_neighbours(path: Path) -> None:
    own, first = (read_options(["--config", str(file)]).config for file in (path, min(path.parent.glob("*.yaml"))))
    assert (own.data, own.eval) == (first.data, first.eval)


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda folder: folder.name)
def test_a_name_alone_trains_one_model(folder: Path) -> None:
    defaults = [path for path in folder.glob("*.yaml") if "default: true\n" in path.read_text(encoding="utf-8")]
    assert len(defaults) <= 1
    assert read_options([], folder.name).file == (defaults or [folder / "inductive_kgat.yaml"])[0]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_published_figures_come_last_and_name_their_source(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "published" not in read_yaml(path)
    if "published" in content:
        assert list(content)[-1] == "published"
    for figure in content.get("published", {}).values():
        assert figure["source"]
        assert any(isinstance(value, float) for value in figure.values())


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_it_runs_one_epoch_on_the_planted_graph(path: Path, tmp_path: Path) -> None:
    config = read_options(["--config", str(path), "--train.epochs=1"]).config
    folder = run(replace(config, out=str(tmp_path / "run")), graph=planted_for(config), quiet=True)
    assert folder.finished
    if not config.train.select:  # nothing is measured then: once more, as its figures were
        assert "valid" not in folder.metrics
        config = replace(config, train=config.train.without_refit())
        folder = run(replace(config, out=str(tmp_path / "selecting")), graph=planted_for(config), quiet=True)
    value = folder.metrics["valid"][config.train.select_by]
    assert 0 <= value <= 1
