from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from graphrec.errors import ArgumentError
from graphrec.experiment.report import Figure, Row, Table, plain_table, print_table

ROWS = (
    Row("Popularity", "", (0,), {"recall@20": Figure(0.1, 0.05, 0.15), "gini@20": Figure(0.9)}, 0.0004, 0.01, 150.0),
    Row("KGAT", "full", (0, 1, 2), {"recall@20": Figure(0.3, 0.25, 0.35), "gini@20": Figure(0.5)}, None, 12.3, 160.0),
    Row("KGAT", "none", (0, 1, 2), {"recall@20": Figure(0.28, 0.23, 0.33)}, 0.25, 9.8, 155.0),
)
TABLE = Table("films", "random", "test", ("recall@20", "gini@20"), ROWS, "recall@20", "KGAT, with KG")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_markdown_has_a_line_a_row_and_says_what_the_figures_are() -> None:
    lines = TABLE.to_markdown().splitlines()
    assert "films, split random, test part" in lines[0]
    assert "against KGAT, with KG, Holm" in lines[0]
    assert lines[2] == "| model | seeds | recall@20 | gini@20 | p | seconds | peak MB |"
    assert lines[4] == "| Popularity | 1 | 0.1000 [0.0500, 0.1500] | 0.9000 | <0.001 | 0.0 | 150 |"
    assert lines[6] == "| KGAT, no KG | 3 | 0.2800 [0.2300, 0.3300] | | 0.250 | 9.8 | 155 |"
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_csv_keeps_full_precision() -> None:
    table = replace(TABLE, rows=(replace(ROWS[0], figures={"recall@20": Figure(1 / 3, 0.1, 0.5)}), *ROWS[1:]))
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["model"] for row in rows] == ["Popularity", "KGAT", "KGAT"]
    assert float(rows[0]["recall@20"]) == 1 / 3
    assert (rows[1]["recall@20 low"], rows[1]["kg"], rows[1]["seeds"], rows[1]["p"]) == ("0.25", "full", "0 1 2", "")


def test_dict_is_json() -> None:
    content = json.loads(json.dumps(TABLE.to_dict()))
    assert content["rows"][2]["figures"] == {"recall@20": [0.28, 0.23, 0.33]}
    assert content["reference"] == "KGAT, with KG"


def test_piped_table_is_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    TABLE.show()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert lines[2].startswith("Popularity         1  0.1000 [0.0500, 0.1500]")
    assert "\x1b" not in "".join(lines)


def test_terminal_gets_a_drawn_table() -> None:
    stream = Terminal()
    print_table(["model", "[auc]"], [["a", "[0.5]"]], "caption", stream)
    assert "━" in stream.getvalue()
    assert "[auc]" in stream.getvalue()  # not taken for markup
    assert "[0.5]" in stream.getvalue()


@pytest.mark.parametrize("width", [50, 80, 300])
def test_a_narrow_terminal_gets_several_tables_and_no_cut_cell(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    header = ["model", *(f"metric@{k}" for k in range(5))]
    cells = [["a model, with KG", *(f"0.{row}{k} [0.1234, 0.5678]" for k in range(5))] for row in range(3)]
    stream = Terminal()
    print_table(header, cells, "caption", stream)
    printed = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())  # styles take no room
    for cell in (*header, *(cell for row in cells for cell in row)):
        assert cell in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    assert printed.count("metric@3") == printed.count("caption") == 1
    assert printed.count("━┩") == {50: 5, 80: 3, 300: 1}[width]


def test_plain_table_of_nothing_has_its_header() -> None:
    assert plain_table(["model", "auc"], []) == ["model  auc"]


def test_save_writes_table_and_plot(tmp_path: Path) -> None:
    assert [path.name for path in TABLE.save(tmp_path)] == ["table.csv", "table.md", "table.png"]
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() == TABLE.to_markdown()


def test_plot_shows_every_row_and_its_title(tmp_path: Path) -> None:
    TABLE.plot(tmp_path / "plot.svg", ["recall@20", "gini@20"])
    texts = re.findall("<!-- (.*?) -->", (tmp_path / "plot.svg").read_text())
    assert {f"Models on {TABLE.data}", "recall@20", "gini@20", *(row.label for row in TABLE.rows)} <= set(texts)
    for row in TABLE.rows:
        assert f"{row.figures['recall@20'].mean:.4f}" in texts
    with pytest.raises(ArgumentError, match=r"metric must be one of .*did you mean 'recall@20'"):
        TABLE.plot(tmp_path / "plot.svg", ["recall@2"])


def test_save_without_matplotlib_writes_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert [path.name for path in TABLE.save(tmp_path)] == ["table.csv", "table.md"]


def test_plot_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ArgumentError, match=r"graphrec\[plots\]"):
        TABLE.plot(tmp_path / "plot.png")
