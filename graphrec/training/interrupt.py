"""SIGINT and SIGTERM that wait for a good moment."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after a whole step, and was saved if it has a run folder.

    Args:
        signal_name: ``"SIGINT"`` or ``"SIGTERM"``.
        where: The position, for people.
        checkpoint: The file to resume from, or ``None`` where nothing was saved.
    """

    def __init__(self, signal_name: str, where: str, checkpoint: Path | None) -> None:
        self.signal_name = signal_name
        self.checkpoint = checkpoint
        saved = "nothing was saved" if checkpoint is None else f"saved in {checkpoint}; train again to resume"
        super().__init__(f"interrupted by {signal_name} at {where}: {saved}")


class InterruptGuard:
    """Notes the first SIGINT or SIGTERM in :attr:`requested` instead of breaking off a step.

    A second signal breaks off at once with ``KeyboardInterrupt``. Python handles signals in the main thread
    only: in any other thread the guard does nothing. The handlers before it are back after the block.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                # A handler that was not set from Python (None) could not be put back; an ignored one stays ignored.
                if before is not None and before != signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
