from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cases.planted_folder import write_planted
from cases.toy_models import ToyKGAT

from graphrec.cli import COMMANDS, guarded, main
from graphrec.cli.common import split_arguments
from graphrec.errors import ConfigError
from graphrec.training import Trainer
from kg_loaders.formats import tables
from kg_loaders.synthetic import planted

FAST = ("--train.epochs=2", "--train.batch_size=16")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_planted(tmp_path_factory.mktemp("data") / "films"))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of the test's own, no committed configurations, and a flagship that costs nothing."""
    from graphrec.models import MODELS

    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("GRAPHREC_DATA", raising=False)
    nothing = tmp_path_factory.getbasetemp() / "nothing"
    monkeypatch.setattr("graphrec.experiment.catalogue.configs_root", lambda: nothing)
    monkeypatch.setitem(MODELS, "InductiveKGAT", ToyKGAT)


@pytest.fixture(scope="session")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of the flagship."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        from graphrec.models import MODELS

        patch.setitem(MODELS, "InductiveKGAT", ToyKGAT)
        assert main(["train", dataset, "--model", "inductive-kgat", *FAST, "--out", str(run), "--json"]) == 0
    return str(run)


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def graphrec(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*argv: str) -> Said:
        capsys.readouterr()
        code = main(argv)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


# Start


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, graphrec.cli\n"
        "assert graphrec.cli.main(['--help']) == 0\n"
        "heavy = {'torch', 'torch_geometric', 'pandas', 'numpy', 'jsonargparse', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)
    assert seconds < 2  # 0.1 s on an idle machine; the tests' machine may be busy


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_loads_no_torch(command: str) -> None:
    program = (
        "import sys, graphrec.cli\n"
        f"try: graphrec.cli.main([{command!r}, '--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'torch_geometric', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: graphrec {command}")
    assert "--json" in done.stdout


def test_module_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "graphrec", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("graphrec 0.")


def test_no_command_shows_the_help(graphrec: Any) -> None:
    said = graphrec()
    assert (said.code, said.out.startswith("usage: graphrec COMMAND")) == (2, True)


# Wrong usage and failures


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("trian",), 2, "did you mean 'train'?"),
        (("train", "--model", "EASE"), 2, "no data set"),
        (("train", "films", "books"), 2, "train takes one data set, got films books"),
        (("train", "films", "--seed"), 2, "--seed needs a value"),
        (("train", "films", "--model", "EASY"), 2, "did you mean 'EASE'?"),
        (("train", "films", "--sed", "1"), 2, "did you mean 'seed'?"),
        (("train", "ml-1OOk", "--model", "EASE"), 1, "unknown data set 'ml-1OOk'; did you mean 'ml-100k'?"),
        (("data", "inspect", "ml-1OOk"), 1, "unknown data set 'ml-1OOk'"),
        (("data", "inspct", "ml-100k"), 2, "invalid choice: 'inspct'"),
        (("data", "inspect", "x", "--jso"), 2, "unrecognized arguments: --jso; did you mean '--json'?"),
        (("compare",), 2, "compare takes a data set or several run folders, got none"),
        (("compare", "films", "--seeds", "none"), 2, "--seeds must be a number of seeds"),
        (("compare", "films", "--seeds", "0"), 2, "--seeds must be a number of seeds"),
        (("compare", "films", "--models", "a,b"), 2, "model must be one of"),
        (("compare", "films", "--models", "EASE", "--model", "ItemKNN"), 2, "--model is for one run"),
        (("evaluate", "absent"), 1, "absent: there is no such run folder"),
        (("evaluate", "absent", "--split", "train"), 2, "invalid choice: 'train'"),
        (("recommend", "absent"), 2, "one of the arguments --user --history --all-users is required"),
        (("recommend", "absent", "--user", "1"), 1, "there is no such run folder"),
        (("recommend", "absent", "--user", "1", "--all-users"), 2, "not allowed with argument"),
        (("recommend", "absent", "--all-users"), 2, "--all-users and --output go together"),
        (("recommend", "absent", "--user", "1", "--output", "a.tsv"), 2, "--all-users and --output go together"),
        (("recommend", "absent", "--all-users", "--output", "a.csv"), 2, "output must end in .parquet or .tsv"),
        (("recommend", "absent", "--user", "1", "-k", "0"), 2, "-k must be at least 1, got 0"),
        (("recommend", "absent", "--user", "1", "--method", "attention"), 2, "--method goes with --explain"),
        (("recommend", "absent", "--all-users", "--output", "a.tsv", "--only", "x"), 2, "are for one user"),
        (("recommend", "absent", "--user", "1", "--where", "genre"), 2, "--where must be RELATION=ENTITY, got 'genre'"),
        (("explain", "absent", "--user", "1"), 2, "--item"),
        (("serve", "absent", "--port", "99999"), 2, "--port must be within 0..65535, got 99999"),
        (("serve", "absent", "--port", "-1"), 2, "--port must be within 0..65535, got -1"),
        (("serve", "absent", "--threads", "-3"), 2, "--threads must be at least 1, got -3"),
        (("serve", "absent", "--threads", "0"), 2, "--threads must be at least 1, got 0"),
    ],
)
def test_errors_are_one_line(graphrec: Any, argv: tuple[str, ...], code: int, message: str) -> None:
    said = graphrec(*argv)
    assert said.code == code
    lines = [line for line in said.err.splitlines() if not line.startswith("settings: ")]
    assert len(lines) == 1
    assert lines[0].startswith("graphrec: ")
    assert message in lines[0]
    assert said.out == ""


def test_mistakes_of_ours_say_where(graphrec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(argv: list[str]) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("graphrec.cli.data.main", broken)
    said = graphrec("data", "inspect", "x")
    assert said.code == 1
    assert said.err.startswith("graphrec: KeyError in test_cli.py:")
    assert "Traceback" not in said.err
    monkeypatch.setenv("GRAPHREC_DEBUG", "1")
    assert "Traceback" in graphrec("data", "inspect", "x").err


def test_full_disk_is_one_line(graphrec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(argv: list[str]) -> None:
        raise OSError(28, "No space left on device", "a.tsv")

    monkeypatch.setattr("graphrec.cli.data.main", full)
    assert graphrec("data").err == "graphrec: [Errno 28] No space left on device: 'a.tsv'\n"


def test_interruption_says_how_to_go_on(graphrec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphrec.cli.data.main", stop)
    said = graphrec("data")
    assert said.code == 130
    assert "resume" in said.err


def test_guarded_returns_the_code_of_a_command() -> None:
    assert guarded(lambda: None) == 0
    assert guarded(lambda code: code, 3) == 3


def test_split_arguments_needs_every_value() -> None:
    assert split_arguments(["a", "--b=1", "--c", "-2", "--json"], ["--json"]) == (
        ["a"],
        ["--b=1", "--c", "-2"],
        {"--json"},
    )
    with pytest.raises(ConfigError, match="--c needs a value"):
        split_arguments(["a", "--c"], [])


# Commands


def test_data_inspect(graphrec: Any, dataset: str) -> None:
    assert "users" in graphrec("data", "inspect", dataset).out
    found = graphrec("data", "inspect", dataset, "--json").json
    assert found["sizes"]["users"] == 30
    assert graphrec("data", "inspect", dataset, "--format", "tables", "--json").json == found


def test_data_audit(graphrec: Any, dataset: str) -> None:
    said = graphrec("data", "audit", dataset)
    assert said.code == 0, said.err
    assert "test pairs in train" in said.out
    assert said.out.endswith("no problems\n")
    checks = [finding["check"] for finding in graphrec("data", "audit", dataset, "--json").json]
    assert len(checks) == len(set(checks)) >= 10


def test_data_audit_tells_of_a_test_part_that_stands_in_train(graphrec: Any, tmp_path: Path) -> None:
    rows = [f"u{user},i{item},train" for user in range(2) for item in range(user, user + 6)]
    rows += [row.replace("train", "test") for row in rows]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,split", *rows]))
    said = graphrec("data", "audit", str(tmp_path))
    assert said.code == 0, said.err
    assert said.out.endswith("1 problem\n")
    finding = next(f for f in graphrec("data", "audit", str(tmp_path), "--json").json if f["verdict"] == "problem")
    assert (finding["check"], finding["count"]) == ("test pairs in train", 12)
    assert graphrec("data", "inspect", str(tmp_path), "--json").json["test_pairs_in_train"] == 12


def test_data_audit_takes_another_split(graphrec: Any, tmp_path: Path) -> None:
    rows = ["ann,alien,1", "ann,heat,2", "ann,speed,3", "bob,heat,1"]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,time", *rows]))
    said = graphrec("data", "audit", str(tmp_path))
    assert "the split 'random' leaves no valid pairs; choose another data.split" in said.err
    said = graphrec("data", "audit", str(tmp_path), "--data.split", "leave-last")
    assert said.code == 0, said.err
    said = graphrec("data", "audit", "--data.split=random", "--data.ratios=0.4,0.3,0.3", "--data.seed=1", str(tmp_path))
    assert said.code == 0, said.err
    said = graphrec("data", "audit", str(tmp_path), "--data.split", "leave-lost")
    assert (said.code, "did you mean 'leave-last'" in said.err) == (2, True)
    said = graphrec("data", "inspect", str(tmp_path), "--data.seed", "3")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "--data.seed is for audit" in said.err


def test_train_prints_figures_and_places(graphrec: Any, dataset: str, tmp_path: Path) -> None:
    said = graphrec("train", dataset, "--model.dim", "4", *FAST, "--seed=3", "--out", str(tmp_path / "run"))
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].split() == ["metric", "valid", "test"]
    assert any(line.startswith("ndcg@20") and len(line.split()) == 3 for line in lines)
    assert f"run      {tmp_path / 'run'}" in lines
    assert "select 1/2" in said.err  # plain lines when piped
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 3
    # The same command again shows the same figures, at once.
    again = graphrec("train", dataset, "--model.dim", "4", *FAST, "--seed=3", "--out", str(tmp_path / "run"))
    assert (again.code, again.out) == (0, said.out)
    assert "select 1/2" not in again.err
    other = graphrec("train", dataset, "--model.dim", "5", *FAST, "--seed=3", "--out", str(tmp_path / "run"))
    assert other.code == 1
    assert "another configuration (model.dim: 4 there, 5 here); choose another --out" in other.err


def test_what_is_told_when_is_said_beside_its_figures(graphrec: Any, dataset: str, tmp_path: Path) -> None:
    timed = ("--model=HSTU", "--model.num_time_buckets=8", *FAST)
    for told in ("true", "false"):
        said = graphrec("train", dataset, *timed, "--model.request_time", told, "--out", str(tmp_path / told))
        assert said.code == 0, said.err
        assert ("compare it with others that are told" in said.out) is (told == "true")
    for first, rows in (
        ("true", ("(told when)", "(model.request_time False)")),
        ("false", ("", "(model.request_time True)")),
    ):
        second = "false" if first == "true" else "true"
        lines = graphrec("compare", str(tmp_path / first), str(tmp_path / second)).out.splitlines()
        assert [line.split("  ")[0].strip() for line in lines[-2:]] == [f"HSTU {row}".strip() for row in rows]


def test_train_without_a_folder_makes_its_own(
    graphrec: Any, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = graphrec("train", dataset, *FAST, "--json").json
    assert found["run"].startswith("runs/films/inductivekgat-seed0-")
    assert (tmp_path / found["run"] / "metrics.json").is_file()
    assert 0 <= found["test"]["recall@20"] <= 1


def test_train_reads_a_file(graphrec: Any, dataset: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"data: {{name: {dataset}}}\nmodel: Popularity\neval: {{metrics: [ndcg@20, recall@5]}}\n")
    said = graphrec("train", "--config", str(file), "--out", str(tmp_path / "run"), "--json")
    assert set(said.json["test"]) == {"ndcg@20", "recall@5"}
    assert f"settings: {file}" in said.err


@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process")
def test_interrupted_training_is_saved_and_says_how_to_resume(dataset: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parents[1])!r}]\n"
        "from cases.toy_models import ToyKGAT\n"
        "from graphrec.models import MODELS\n"
        "MODELS['InductiveKGAT'] = ToyKGAT\n"
        "from graphrec.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    run = tmp_path / "run"
    options = ["--train.batch_size=4", "--train.patience=0", "--out", str(run)]
    long = [sys.executable, "-c", program, "train", dataset, "--train.epochs=5000", *options]
    process = subprocess.Popen(long, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("select 3/"):
            process.send_signal(signal.SIGINT)
            break
    err = process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert last.startswith("graphrec: interrupted by SIGINT")
    assert "train again to resume" in last
    assert (run / "checkpoint.safetensors").is_file()
    assert not (run / "metrics.json").exists()


def test_evaluate_gives_the_figures_of_the_run(graphrec: Any, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads((Path(trained) / "metrics.json").read_text())
    assert graphrec("evaluate", trained, "--json").json["test"] == stored["test"]
    said = graphrec("evaluate", trained, "--split", "valid", "--json")
    assert said.json["valid"] == stored["valid"]
    assert "before it was refitted" in said.err
    assert graphrec("evaluate", trained).out.startswith("metric")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Trainer, "fit", refuse)
    assert graphrec("evaluate", trained).code == 0


@pytest.mark.parametrize("has_test", [True, False])
def test_what_was_trained_on_both_parts_at_once_says_so(graphrec: Any, tmp_path: Path, has_test: bool) -> None:
    graph = planted(num_users=30, num_items=40, num_cold_items=4)
    codes = graph.interactions.split
    assert codes is not None
    films, run = tmp_path / "films", str(tmp_path / "run")
    tables.write(graph if has_test else graph.with_split(codes.clip(max=1)), films)
    said = graphrec("train", str(films), "--model", "inductive-kgat", *FAST, "--train.select=false", "--out", run)
    assert said.code == 0, said.err
    assert ("nothing measured: the model was trained on train and validation at once" in said.out) != has_test
    assert (said.out.split()[:2] == ["metric", "test"]) == has_test
    assert "valid:" not in said.out
    refused = graphrec("evaluate", run, "--split", "valid")
    assert refused.code != 0
    assert "split must not be 'valid'" in refused.err
    assert "--train.select true --train.refit false" in refused.err
    assert (graphrec("evaluate", run).code == 0) == has_test


def test_compare_prints_and_saves_the_table(graphrec: Any, dataset: str, tmp_path: Path) -> None:
    argv = ("compare", dataset, "--models", "inductive-kgat", "--seeds", "2", "--kg", "full,none", *FAST)
    said = graphrec(*argv, "--versus", "ease", "--metric", "recall@10", "--out", str(tmp_path))
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert "paired test of recall@10 against EASE" in lines[0]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "Popularity",
        "EASE",
        "InductiveKGAT, with KG",
        "InductiveKGAT, no KG",
    ]
    assert (tmp_path / "table.md").read_text().count("\n| ") == 5
    found = graphrec(*argv, "--seeds", "0,1", "--json", "--out", str(tmp_path)).json
    assert [len(row["seeds"]) for row in found["rows"]] == [1, 1, 2, 2]
    assert found["reference"] == "InductiveKGAT, with KG"


def test_compare_takes_finished_runs(graphrec: Any, dataset: str, trained: str, tmp_path: Path) -> None:
    other = str(tmp_path / "popularity")
    assert graphrec("train", dataset, "--model", "Popularity", "--out", other, *FAST).code == 0
    said = graphrec("compare", other, trained, "--out", str(tmp_path / "table"))
    assert said.code == 0, said.err
    assert [line.split("  ")[0] for line in said.out.splitlines()[2:]] == ["Popularity", "InductiveKGAT, with KG"]
    assert (tmp_path / "table" / "table.csv").is_file()
    assert graphrec("compare", other, trained, "--versus", other, "--json").json["reference"] == "Popularity"
    refused = graphrec("compare", other, trained, "--seeds", "2")
    assert refused.code == 2
    assert "runs are compared as they are" in refused.err
    assert graphrec("compare", other).code == 2


def test_recommend_to_a_user_and_to_a_stranger(graphrec: Any, trained: str) -> None:
    said = graphrec("recommend", trained, "--user", "user-03", "-k", "4")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 4
    found = graphrec("recommend", trained, "--user", "user-03", "-k", "4", "--json").json
    assert [item["rank"] for item in found["items"]] == [1, 2, 3, 4]
    assert not {item["item_id"] for item in found["items"]} & set(found["history"])
    stranger = graphrec("recommend", trained, "--history", "Item 3", "--history", "item-04", "--json").json
    assert stranger["history"] == ["item-03", "item-04"]
    assert graphrec("recommend", trained, "--history", "Item 3").err == "past: 1 item: Item 3\n"
    assert len(stranger["items"]) == 10


def test_recommend_explains_unclear_titles(graphrec: Any, trained: str) -> None:
    said = graphrec("recommend", trained, "--history", "item 1x")
    assert said.code == 2
    assert "no item has the id or title 'item 1x'; nearest: 'Item 1'" in said.err
    assert "fits 40 items" in graphrec("recommend", trained, "--history", "item").err
    said = graphrec("recommend", trained, "--user", "usr-03")
    assert said.code == 1
    assert "did you mean 'user-03'?" in said.err


@pytest.mark.parametrize("name", ["top.tsv", "top.parquet"])
def test_recommend_to_all_users(graphrec: Any, trained: str, tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra graphrec[parquet] is not installed")
    file = tmp_path / name
    found = graphrec("recommend", trained, "--all-users", "-k", "3", "--output", str(file), "--json").json
    assert found == {"output": str(file), "users": 30, "rows": 90}
    table = pd.read_csv(file, sep="\t") if name.endswith(".tsv") else pd.read_parquet(file)
    assert list(table.columns) == ["user_id", "item_id", "rank", "score"]
    assert table.groupby("user_id").size().eq(3).all()


@pytest.mark.skipif(os.name != "posix", reason="pipes differ")
def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "graphrec", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_explain_prints_the_reasons(graphrec: Any, trained: str) -> None:
    said = graphrec("explain", trained, "--history", "Item 3", "--history", "item 4", "--item", "item 7")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "Item 7"
    assert len(lines) > 1
    known = graphrec("explain", trained, "--history", "Item 3", "--history", "item 4", "--item", "item 4")
    assert known.out.splitlines()[0] == "Item 4 (in this history already)"
    found = graphrec("explain", trained, "--user", "user-03", "--item", "item-09", "--json").json
    assert found["item_id"] == "item-09"
    assert found["sentences"]
    assert graphrec("explain", trained, "--user", "user-03", "--item", "nothing").code == 2


def test_explain_by_a_method_into_a_picture(graphrec: Any, trained: str, tmp_path: Path) -> None:
    asked = ("explain", trained, "--user", "user-03", "--item", "item-09")
    picture = tmp_path / "why.svg"
    said = graphrec(*asked, "--method", "leave-one-out", "-k", "2", "--picture", str(picture))
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1].startswith("  (leave-one-out: how far the score falls without each past item")
    assert len(said.out.splitlines()) <= 6
    assert "<svg" in picture.read_text()
    for wrong, message in (
        (("--method", "lime"), "method for ToyKGAT must be one of 'leave-one-out', got 'lime'"),
        (("-k", "0"), "-k must be at least 1, got 0"),
        (("--picture", "why.gif"), "picture must end in .png or .svg, got 'why.gif'"),
        (("--picture", str(tmp_path / "no" / "why.svg")), "picture: there is no folder"),
    ):
        said = graphrec(*asked, *wrong)
        assert (said.code, message in said.err) == (2, True), said.err


def test_export_writes_vectors_or_says_why_not(graphrec: Any, trained: str, dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = graphrec("export", trained, "--output", str(out), "--no-onnx")
    assert (said.code, out.exists()) == (2, False)
    assert "ToyKGAT has no user and item vectors" in said.err
    run = str(tmp_path / "run")
    assert graphrec("train", dataset, "--model", "softmax-mf", *FAST, "--out", run).code == 0
    said = graphrec("export", run, "--output", str(out), "--no-onnx")
    assert said.code == 0, said.err
    assert [line.split()[0] for line in said.out.splitlines()] == [
        str(out / name) for name in ("export.json", "item_ids.json", "items.safetensors", "user_ids.json")
    ]
    assert graphrec("export", run, "--output", str(out)).code == 2  # it is not empty
    report = graphrec("export", run, "--output", str(tmp_path / "other"), "--no-onnx", "--json").json
    assert report["model"] == "SoftmaxMF"


def test_index_is_saved_and_used(graphrec: Any, trained: str, dataset: str, tmp_path: Path) -> None:
    assert "ToyKGAT has no user and item vectors" in graphrec("index", trained).err
    run = str(tmp_path / "run")
    assert graphrec("train", dataset, "--model", "softmax-mf", *FAST, "--out", run).code == 0
    argv = ("recommend", run, "--user", "user-03", "-k", "5", "--json")
    before = [item["item_id"] for item in graphrec(*argv).json["items"]]
    said = graphrec("index", run, "--json")
    assert said.code == 0, said.err
    assert (said.json["approximate"], said.json["recall"]) == (False, 1.0)
    assert [item["item_id"] for item in graphrec(*argv).json["items"]] == before
    info = Path(said.json["folder"]) / "info.json"
    info.write_text(info.read_text().replace(said.json["weights"], "0" * 64))
    assert "its index is of other weights" in graphrec(*argv).err
    assert graphrec("index", run).code == 0
    assert [item["item_id"] for item in graphrec(*argv).json["items"]] == before


def test_recommend_with_filters(graphrec: Any, trained: str) -> None:
    argv = ("recommend", trained, "--user", "user-03", "--json")
    plain = [item["item_id"] for item in graphrec(*argv, "-k", "5").json["items"]]
    assert [item["item_id"] for item in graphrec(*argv, "-k", "4", "--exclude", plain[0]).json["items"]] == plain[1:]
    found = graphrec(*argv, "--only", plain[2], "--only", plain[1]).json["items"]
    assert [item["item_id"] for item in found] == plain[1:3]
    said = graphrec(*argv, "--where", "genre=nothing")
    assert (said.code, "of items in" in said.err) == (2, True)
    assert len(graphrec(*argv, "-k", "5", "--diversity", "0.5").json["items"]) == 5
    assert "diversity must be within" in graphrec(*argv, "--diversity", "2").err
    nothing = graphrec(*argv, "--only", plain[0], "--exclude", plain[0])
    assert nothing.json["items"] == []
    assert "nothing is left: of " in nothing.err
    past = graphrec(*argv).json["history"][0]
    said = graphrec(*argv, "--only", plain[1], "--only", past)
    assert [item["item_id"] for item in said.json["items"]] == [plain[1]]
    assert "taken already, so not in the list: " in said.err


def test_recommend_with_reasons(graphrec: Any, trained: str) -> None:
    argv = ("recommend", trained, "--user", "user-03", "-k", "3")
    plain, explained = graphrec(*argv), graphrec(*argv, "--explain")
    reasons = [line for line in explained.out.splitlines() if line.startswith("       ")]
    assert [line for line in explained.out.splitlines() if line not in reasons] == plain.out.splitlines()
    assert len(reasons) >= 3
    assert "reasons by leave-one-out: how far the score falls without each past item" in explained.err
    for item in graphrec(*argv, "--explain", "--json").json["items"]:
        assert item["explanation"]["item_id"] == item["item_id"]


def test_changed_data_are_noticed(graphrec: Any, dataset: str, tmp_path: Path) -> None:
    copy = tmp_path / "films"
    shutil.copytree(dataset, copy)
    run = str(tmp_path / "run")
    assert graphrec("train", str(copy), "--model", "popularity", "--out", run).code == 0
    triples = copy / "triples.csv"
    triples.write_text("\n".join(triples.read_text().splitlines()[:-1]) + "\n")
    said = graphrec("recommend", run, "--user", "user-03")
    assert said.code == 1
    assert "has changed since the run was made" in said.err
