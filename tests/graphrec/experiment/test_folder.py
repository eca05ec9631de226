from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import graphrec
from graphrec.errors import RunError
from graphrec.experiment.build import build_model
from graphrec.experiment.config import DataConfig, EvalConfig, ModelConfig, RunConfig, hash_of
from graphrec.experiment.data import resolve
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.run_info import RunInfo
from graphrec.training import TrainConfig
from kg_loaders import Vocabulary
from kg_loaders.synthetic import planted

GRAPH = planted(num_users=30, num_items=40, num_cold_items=4)


@pytest.fixture
def config() -> RunConfig:
    asked = RunConfig(
        DataConfig("films"),
        ModelConfig("InductiveKGAT"),
        TrainConfig(select_by="recall@10"),
        EvalConfig(("recall@10",)),
    )
    return resolve(asked, GRAPH)


@pytest.fixture
def finished(tmp_path: Path, config: RunConfig) -> RunFolder:
    folder = RunFolder.start(tmp_path / "run", config, GRAPH)
    model = build_model(config, GRAPH)
    per_user = {"test": (torch.arange(3), {"recall@10": torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)})}
    return folder.finish(model, {"valid": {"recall@10": 0.4}, "seconds": {"train": 1.0}}, per_user)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_folder_says_what_made_it(tmp_path: Path, config: RunConfig) -> None:
    RunFolder.start(tmp_path / "deep" / "run", config, GRAPH)
    folder = RunFolder.open(tmp_path / "deep" / "run")
    assert folder.config.to_dict() == config.to_dict()
    assert not folder.finished
    info = json.loads((folder.path / "run.json").read_text())
    assert info["graph_fingerprint"] == GRAPH.fingerprint
    assert info["sizes"]["items"] == 40
    assert info["graphrec"] == graphrec.__version__
    assert info["torch"] == str(torch.__version__)
    assert info["seed"] == config.seed
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["model"]["dim"] == 8


def test_finished_run_gives_back_what_was_put_in(finished: RunFolder, config: RunConfig) -> None:
    folder = RunFolder.open(finished.path)
    assert folder.finished
    assert folder.metrics == {"valid": {"recall@10": 0.4}, "seconds": {"train": 1.0}}
    users, values = folder.per_user("test")
    assert users.tolist() == [0, 1, 2]
    assert values["recall@10"].tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(RunError, match="no values of the valid split"):
        folder.per_user("valid")
    model = folder.load_model(GRAPH)
    assert not model.training
    assert not any(path.name.endswith(".partial") for path in folder.path.iterdir())


def test_weights_are_those_that_were_saved(tmp_path: Path, config: RunConfig) -> None:
    model = build_model(config, GRAPH)
    folder = RunFolder.start(tmp_path / "run", config, GRAPH).finish(model, {}, {})
    torch.manual_seed(99)
    loaded = folder.load_model(GRAPH)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_closed_form_is_loaded_too(tmp_path: Path, config: RunConfig) -> None:
    from graphrec.histories import Histories

    config = resolve(replace(config, model=ModelConfig("Popularity")), GRAPH)
    model = build_model(config, GRAPH)
    histories = Histories.from_interactions(GRAPH.part("train"), GRAPH.num_users)
    model.fit(histories)  # type: ignore[operator]
    loaded = RunFolder.start(tmp_path / "run", config, GRAPH).finish(model, {}, {}).load_model(GRAPH)
    assert torch.equal(loaded.score(histories), model.score(histories))


def test_same_run_is_opened_again_and_another_is_refused(tmp_path: Path, config: RunConfig) -> None:
    first = RunFolder.start(tmp_path / "run", config, GRAPH)
    assert RunFolder.start(tmp_path / "run", config, GRAPH).info == first.info
    other = replace(config, model=ModelConfig("InductiveKGAT", {**config.model.options, "dim": 5}))
    with pytest.raises(RunError, match=r"another configuration \(model.dim: 8 there, 5 here\); choose another --out"):
        RunFolder.start(tmp_path / "run", other, GRAPH)
    with pytest.raises(RunError, match=r"seed: 0 there, 3 here"):
        RunFolder.start(tmp_path / "run", replace(config, seed=3), GRAPH)
    assert RunFolder.open(tmp_path / "run").config.to_dict() == config.to_dict()


def test_run_of_another_version_is_read_but_not_continued(tmp_path: Path, config: RunConfig) -> None:
    RunFolder.start(tmp_path / "run", config, GRAPH)
    edit(tmp_path / "run" / "run.json", graphrec="0.0.1")
    assert RunFolder.open(tmp_path / "run").info.graphrec == "0.0.1"
    with pytest.raises(RunError, match=r"made by graphrec 0\.0\.1, this is"):
        RunFolder.start(tmp_path / "run", config, GRAPH)


def test_foreign_folders_are_left_alone(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds no run \(first: 'thesis.tex'\)"):
        RunFolder.start(tmp_path, config, GRAPH)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match="is a file"):
        RunFolder.start(tmp_path / "thesis.tex", config, GRAPH)


def test_kill_at_the_very_start_harms_nothing(tmp_path: Path, config: RunConfig) -> None:
    path = RunFolder.start(tmp_path / "run", config, GRAPH).path
    (path / "run.json").rename(path / ".run.json.partial")
    assert RunFolder.start(path, config, GRAPH).config == config


def test_changed_graphs_are_refused(finished: RunFolder) -> None:
    users = Vocabulary([f"x{i}" for i in range(30)], "user")
    with pytest.raises(RunError, match="the vocabulary of films has changed since the run was made; train again"):
        finished.load_model(replace(GRAPH, users=users))
    with pytest.raises(RunError, match=r"the content of films has changed .*\(triples \d+ -> 0\)"):
        finished.load_model(GRAPH.without_kg())
    bigger = planted(num_users=31, num_items=41, num_cold_items=4)
    with pytest.raises(RunError, match=r"vocabulary of films has changed .*users 30 -> 31, items 40 -> 41"):
        finished.load_model(bigger)


def test_missing_and_damaged_files_are_named(finished: RunFolder, tmp_path: Path) -> None:
    def broken(name: str, content: bytes | None) -> RunFolder | Path:
        copy = tmp_path / f"copy-{name}-{content is None}"
        shutil.copytree(finished.path, copy)
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        return copy

    for name, use in (
        ("run.json", RunFolder.open),
        ("config.yaml", RunFolder.open),
        ("metrics.json", lambda path: RunFolder.open(path).metrics),
        ("per_user.safetensors", lambda path: RunFolder.open(path).per_user("test")),
        ("model.safetensors", lambda path: RunFolder.open(path).load_model(GRAPH)),
    ):
        with pytest.raises(RunError, match=f"{name}: missing") as caught:
            use(broken(name, None))  # type: ignore[no-untyped-call,arg-type,operator]
        assert "\n" not in str(caught.value)
        with pytest.raises(RunError, match=name):
            use(broken(name, b"\x00\x01"))  # type: ignore[no-untyped-call,arg-type,operator]


def test_one_flipped_bit_is_found(finished: RunFolder) -> None:
    path = finished.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"model.safetensors: damaged \(its SHA-256"):
        finished.load_model(GRAPH)


def test_weights_of_another_model_are_refused(finished: RunFolder) -> None:
    from safetensors.torch import save_file

    from graphrec.experiment.files import sha256

    path = finished.path / "model.safetensors"
    save_file({"entity.weight": torch.zeros(2, 2)}, path)
    folder = replace(finished, info=replace(finished.info, files={**finished.info.files, path.name: sha256(path)}))
    with pytest.raises(RunError, match="weights do not fit InductiveKGAT"):
        folder.load_model(GRAPH)


def test_other_format_versions_are_refused(finished: RunFolder) -> None:
    edit(finished.path / "run.json", format_version=2, graphrec="9.0")
    with pytest.raises(RunError, match=r"run folder format 2, made by graphrec 9\.0; this is .* reads format 1"):
        RunFolder.open(finished.path)


def test_run_made_before_an_option_was_added_opens(finished: RunFolder) -> None:
    path = finished.path / "config.yaml"
    written = yaml.safe_load(path.read_text())
    del written["data"]["features"]
    path.write_text(yaml.safe_dump(written))
    edit(finished.path / "run.json", config_hash=hash_of(written))
    folder = RunFolder.open(finished.path)
    assert folder.config.data.features == ()
    assert folder.load_model(GRAPH).num_items == GRAPH.num_items


def test_edited_configuration_is_noticed(finished: RunFolder) -> None:
    path = finished.path / "config.yaml"
    path.write_text(path.read_text().replace("dim: 8", "dim: 9"))
    with pytest.raises(RunError, match="changed since the run was made"):
        RunFolder.open(finished.path)
    path.write_text(path.read_text().replace("dim: 9", "dmi: 9"))
    with pytest.raises(RunError, match=r"config.yaml: model.dmi is not a known setting"):
        RunFolder.open(finished.path)


@pytest.mark.parametrize("changes", [{"unknown": 1}, {"format_version": None}, {"format_version": "1"}])
def test_strange_info_is_refused(finished: RunFolder, changes: dict[str, Any]) -> None:
    edit(finished.path / "run.json", **changes)
    with pytest.raises(RunError, match=r"run\.json: damaged|run folder format"):
        RunFolder.open(finished.path)


def test_absent_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such run folder"):
        RunFolder.open(tmp_path / "absent")


def test_unfinished_run_has_no_results(tmp_path: Path, config: RunConfig) -> None:
    folder = RunFolder.start(tmp_path / "run", config, GRAPH)
    with pytest.raises(RunError, match="the run is unfinished; the same train command resumes it"):
        _ = folder.metrics
    with pytest.raises(RunError, match="unfinished"):
        folder.load_model(GRAPH)


def test_full_disk_while_saving_leaves_the_run_unfinished(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.start(tmp_path / "run", config, GRAPH)
    (folder.path / "checkpoint.safetensors").write_bytes(b"all that was learnt")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_model", full)
    with pytest.raises(RunError, match=r"could not write .*model\.safetensors: .*No space left"):
        folder.finish(build_model(config, GRAPH), {}, {})
    again = RunFolder.open(folder.path)
    assert not again.finished
    assert (folder.path / "checkpoint.safetensors").read_bytes() == b"all that was learnt"


def test_checkpoint_goes_when_the_run_is_finished(finished: RunFolder) -> None:
    checkpoint = finished.path / "checkpoint.safetensors"
    checkpoint.write_bytes(b"left by a kill after the last write")
    RunFolder.open(finished.path).tidy()
    assert not checkpoint.exists()


def test_info_holds_only_plain_values(finished: RunFolder) -> None:
    assert RunInfo(**json.loads((finished.path / "run.json").read_text())) == finished.info
