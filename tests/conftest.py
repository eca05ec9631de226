"""Shared helpers (``tests/cases``, ``tests/reference``) come first on the path; every test is seeded, on one thread."""

import random
import signal
import sys
from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("cases")
sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

# A shell starts background jobs with Ctrl-C ignored. The code under test leaves that as it is; its tests need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded():
    """What a test draws does not hang on the tests before it."""
    random.seed(0)
    torch.manual_seed(0)
