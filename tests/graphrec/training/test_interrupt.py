import os
import signal
import threading

import pytest

from graphrec.training.interrupt import Interrupted, InterruptGuard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_handlers_come_back(number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with InterruptGuard() as guard:
        assert guard.requested is None
        os.kill(os.getpid(), number)
        assert guard.requested == signal.Signals(number).name
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_second_signal_breaks_off():
    with InterruptGuard():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard:
            os.kill(os.getpid(), signal.SIGTERM)
            assert guard.requested is None
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_installs_nothing():
    seen = []

    def work():
        with InterruptGuard():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_interrupted_says_where_and_from_what_to_resume(tmp_path):
    error = Interrupted("SIGTERM", "phase select, epoch 2, step 5", tmp_path / "checkpoint.safetensors")
    assert isinstance(error, KeyboardInterrupt)
    assert "SIGTERM at phase select, epoch 2, step 5" in str(error)
    assert str(tmp_path) in str(error)
    assert "nothing was saved" in str(Interrupted("SIGINT", "", None))
