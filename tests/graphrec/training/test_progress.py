import io
import sys
from types import SimpleNamespace

from graphrec.training.progress import NotebookProgress, PlainProgress, RichProgress, in_notebook, make_progress

RECORD = {"phase": "select", "epoch": 2, "loss": 1.23456, "valid": {"ndcg@20": 0.07123}, "seconds": 4.24, "lr": 0.001}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(progress):
    with progress:
        progress.start("select", 3, 10)
        for step in range(1, 11):
            progress.step(1, step, 1.5)
        progress.record(RECORD)
        progress.note("resumed")
        progress.start("refit", 2, 10)
        progress.record({**RECORD, "phase": "refit", "valid": None})
    return progress.stream.getvalue()


def test_piped_output_is_one_plain_line_an_epoch():
    progress = make_progress("ndcg@20", stream=io.StringIO())
    assert isinstance(progress, PlainProgress)
    assert show(progress).splitlines() == [
        "select 2/3  loss 1.2346  ndcg@20 0.0712  4.2 s",
        "resumed",
        "refit 2/2  loss 1.2346  4.2 s",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    progress = make_progress("ndcg@20", stream=Terminal())
    assert isinstance(progress, RichProgress)
    shown = show(progress)
    for part in ("select", "2/3", "loss 1.2346", "ndcg@20 0.0712", "refit", "resumed", "━"):
        assert part in shown


def test_a_model_without_epochs_gets_a_line_on_a_terminal_too():
    progress = make_progress("ndcg@20", stream=Terminal())
    with progress:
        progress.record({**RECORD, "loss": None})
    assert "select 2  ndcg@20 0.0712  4.2 s" in progress.stream.getvalue()


def test_quiet_shows_nothing(capsys):
    with make_progress("ndcg@20", quiet=True) as progress:
        progress.start("select", 3, 10)
        progress.step(0, 1, 1.0)
        progress.record(RECORD)
        progress.note("resumed")
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_error(capsys):
    with make_progress("ndcg@20") as progress:
        progress.record(RECORD)
    out, err = capsys.readouterr()
    assert out == ""
    assert "select 2" in err


class Kernel:
    """Stands in for IPython within a notebook: keeps what is displayed, by place."""

    def __init__(self):
        self.shown = []

    def display(self, content, raw, display_id):
        assert raw
        assert display_id
        self.shown.append([content])
        place = self.shown[-1]
        return SimpleNamespace(update=lambda content, raw: place.append(content))


def test_a_notebook_gets_a_bar_a_phase_that_is_updated_in_place(monkeypatch):
    kernel = Kernel()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=kernel.display))
    progress = make_progress("ndcg@20")
    assert isinstance(progress, NotebookProgress)
    with progress:
        progress.start("select", 3, 10)
        progress.step(1, 5, 1.5)
        progress.record(RECORD)
        progress.start("refit", 2, 10)
        progress.record({**RECORD, "phase": "refit", "valid": None})
    select, refit = kernel.shown
    assert [content["text/plain"] for content in select] == [
        "select 0/3",
        "select 2/3  loss 1.5000",
        "select 2/3  loss 1.2346  ndcg@20 0.0712",
    ]
    assert 'value="15" max="30"' in select[1]["text/html"]
    assert refit[-1]["text/plain"] == "refit 2/2  loss 1.2346"


def test_in_a_notebook_a_closed_form_and_a_note_are_lines(capsys):
    progress = NotebookProgress("ndcg@20")
    progress.record({**RECORD, "loss": None})
    progress.note("resumed")
    assert capsys.readouterr().out == "select 2  ndcg@20 0.0712  4.2 s\nresumed\n"


def test_a_terminal_with_ipython_is_no_notebook(monkeypatch):
    shell = type("TerminalInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not in_notebook()
