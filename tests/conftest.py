"""Shared helpers (``tests/cases``, ``tests/reference``) come first on the path; every test runs on one thread."""

import sys
from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("cases")
sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
