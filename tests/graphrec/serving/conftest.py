from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases.served_runs import make_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Finished runs of InductiveKGAT and EASE on one planted data set."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_runs(tmp_path_factory.mktemp("served"))
