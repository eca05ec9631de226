"""What training shows: a bar on a terminal or in a notebook, plain lines when piped, or nothing."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

REFRESH_SECONDS = 0.1


class Progress:
    """Shows nothing; the base of those that do.

    Args:
        select_by: The one validation metric that is shown.
    """

    def __init__(self, select_by: str) -> None:
        self.select_by = select_by
        self.num_epochs = 0

    def start(self, phase: str, num_epochs: int, num_steps: int) -> None:
        """Announce a phase of ``num_epochs`` epochs of ``num_steps`` steps."""
        self.num_epochs = num_epochs

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Show that ``step`` steps of ``epoch`` (from 0) are done; called after every step, so cheap."""

    def record(self, record: dict[str, Any]) -> None:
        """Show a finished epoch."""

    def note(self, text: str) -> None:
        """Show a line of text."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""

    def line(self, record: dict[str, Any]) -> str:
        """Return a record as a line of text, such as ``select 3/50  loss 1.2345  ndcg@20 0.0712  4.2 s``."""
        epochs = f"/{self.num_epochs}" if self.num_epochs else ""
        parts = [f"{record['phase']} {record['epoch']}{epochs}"]
        if record["loss"] is not None:
            parts.append(f"loss {record['loss']:.4f}")
        if record["valid"] is not None:
            parts.append(f"{self.select_by} {record['valid'][self.select_by]:.4f}")
        return "  ".join([*parts, f"{record['seconds']:.1f} s"])


class PlainProgress(Progress):
    """Prints one line an epoch.

    Args:
        select_by: The one validation metric that is shown.
        stream: Where to print.
    """

    def __init__(self, select_by: str, stream: TextIO) -> None:
        super().__init__(select_by)
        self.stream = stream

    def record(self, record: dict[str, Any]) -> None:
        """Print the record as one line."""
        self.note(self.line(record))

    def note(self, text: str) -> None:
        """Print the text."""
        print(text, file=self.stream, flush=True)


class RichProgress(Progress):
    """Draws one bar a phase, with the loss and the last and best validation value beside it.

    Args:
        select_by: The one validation metric that is shown.
        stream: The terminal.
    """

    def __init__(self, select_by: str, stream: TextIO) -> None:
        super().__init__(select_by)
        self.stream = stream
        self._bar: RichBar | None = None
        self._task: TaskID | None = None
        self._num_steps = 0
        self._shown = 0.0
        self._best = ""

    def start(self, phase: str, num_epochs: int, num_steps: int) -> None:
        """Begin the phase's bar."""
        super().start(phase, num_epochs, num_steps)
        self._num_steps = num_steps
        self._best = ""
        assert self._bar is not None
        self._task = self._bar.add_task(phase, total=num_epochs * num_steps, epochs="", values="")

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Move the bar, at most ten times a second."""
        now = time.monotonic()
        if now - self._shown < REFRESH_SECONDS or self._bar is None or self._task is None:
            return
        self._shown = now
        self._bar.update(
            self._task,
            completed=epoch * self._num_steps + step,
            epochs=f"{epoch + 1}/{self.num_epochs}",
            values=f"loss {loss:.4f}{self._best}",
        )

    def record(self, record: dict[str, Any]) -> None:
        """Show the epoch's loss and validation value; a model without epochs gets a line instead."""
        if self._bar is None or self._task is None:
            self.note(self.line(record))
            return
        if record["valid"] is not None:
            self._best = f"  {self.select_by} {record['valid'][self.select_by]:.4f}"
        self._bar.update(
            self._task,
            completed=record["epoch"] * self._num_steps,
            epochs=f"{record['epoch']}/{self.num_epochs}",
            values=f"loss {record['loss']:.4f}{self._best}",
        )

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        assert self._bar is not None
        self._bar.console.print(text, highlight=False, markup=False)

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichBar

        columns = (
            TextColumn("{task.description:6}"),
            TextColumn("{task.fields[epochs]:>7}"),
            BarColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
        )
        self._bar = RichBar(*columns, console=Console(file=self.stream))
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands and give the terminal back."""
        if self._bar is not None:
            self._bar.stop()


class NotebookProgress(Progress):
    """Draws one bar a phase below the cell that trains, updated in place: the browser's own, without widgets.

    Args:
        select_by: The one validation metric that is shown.
    """

    def __init__(self, select_by: str) -> None:
        super().__init__(select_by)
        self._output: Any = None
        self._phase = ""
        self._num_steps = 0
        self._shown = 0.0
        self._best = ""

    def start(self, phase: str, num_epochs: int, num_steps: int) -> None:
        """Begin the phase's bar."""
        super().start(phase, num_epochs, num_steps)
        self._phase, self._num_steps, self._best = phase, num_steps, ""
        self._output = self._display(self._bar(0, f"0/{num_epochs}"))

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Move the bar, at most ten times a second."""
        now = time.monotonic()
        if now - self._shown < REFRESH_SECONDS or self._output is None:
            return
        self._shown = now
        words = f"{epoch + 1}/{self.num_epochs}  loss {loss:.4f}{self._best}"
        self._output.update(self._bar(epoch * self._num_steps + step, words), raw=True)

    def record(self, record: dict[str, Any]) -> None:
        """Show the epoch's loss and validation value; a model without epochs gets a line instead."""
        if self._output is None:
            self.note(self.line(record))
            return
        if record["valid"] is not None:
            self._best = f"  {self.select_by} {record['valid'][self.select_by]:.4f}"
        words = f"{record['epoch']}/{self.num_epochs}  loss {record['loss']:.4f}{self._best}"
        self._output.update(self._bar(record["epoch"] * self._num_steps, words), raw=True)

    def note(self, text: str) -> None:
        """Print the text below the cell."""
        print(text)

    def _bar(self, done: int, words: str) -> dict[str, str]:
        total = max(self.num_epochs * self._num_steps, 1)
        text = f"{self._phase} {words}"
        bar = f'<progress value="{done}" max="{total}" style="width: 16em"></progress>'
        return {"text/plain": text, "text/html": f"{bar} <code>{html.escape(text)}</code>"}

    def _display(self, content: dict[str, str]) -> Any:
        from IPython.display import display

        show: Callable[..., Any] = display  # IPython annotates nothing
        return show(content, raw=True, display_id=True)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = sys.modules.get("IPython")  # whoever runs in one has it loaded
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def make_progress(select_by: str, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """Return what suits the place: a bar on a terminal or in a notebook, lines when piped, nothing when ``quiet``.

    Args:
        select_by: The one validation metric that is shown.
        quiet: Show nothing.
        stream: Standard error unless told otherwise: standard output is for results.
    """
    if quiet:
        return Progress(select_by)
    if stream is None and in_notebook():
        return NotebookProgress(select_by)
    stream = sys.stderr if stream is None else stream
    return RichProgress(select_by, stream) if stream.isatty() else PlainProgress(select_by, stream)
