import io

from graphrec.training.progress import PlainProgress, RichProgress, make_progress

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
