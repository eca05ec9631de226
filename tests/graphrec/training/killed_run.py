"""Runs a small training in forked processes and kills them with SIGKILL at random moments until one comes through.

Usage: killed_run.py FOLDER NUMBER_OF_RUNS SEED MODEL, with MODEL either TinyModel or InductiveKGAT. Prints as JSON the
number of kills of every run, and whether each of them ended as the run that nobody killed. A script of its own: a fork
of pytest would carry its threads and plugins.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from cases.tiny_training import TinyModel, fit_tiny, outcome, tiny_graph
from safetensors.torch import save_file

from graphrec.models import InductiveKGAT
from graphrec.models.base import GradientRecommender

MAX_KILLS = 100  # a busy machine could kill for ever
SETTINGS = {"epochs": 25, "patience": 0, "checkpoint_minutes": 1e-9}  # saves after every step
MODELS = {
    "TinyModel": TinyModel,
    "InductiveKGAT": lambda: InductiveKGAT.from_graph(tiny_graph(), dim=8, num_negatives=10, min_entity_items=1),
}


def make(name: str) -> GradientRecommender:
    return MODELS[name]()


def run(folder: Path, model: GradientRecommender) -> None:
    model, result = fit_tiny(folder, model, **SETTINGS)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "records.json").write_text(json.dumps(outcome(model, result)[1]))


def run_in_child(folder: Path, name: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            run(folder, make(name))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child


def main(root: Path, num_runs: int, seed: int, name: str) -> None:
    torch.set_num_threads(1)  # no threads before the fork
    rng = random.Random(seed)
    fit_tiny(None, make(name), epochs=1)  # what torch loads on first use is loaded before the forks
    started = time.monotonic()
    os.waitpid(run_in_child(root / "whole", name), 0)
    whole_seconds = time.monotonic() - started
    names = ("model.safetensors", "records.json")
    expected = [(root / "whole" / name).read_bytes() for name in names]
    kills, equal = [], []
    for number in range(num_runs):
        folder, killed = root / f"killed-{number}", 0
        while True:
            child = run_in_child(folder, name)
            if killed < MAX_KILLS:
                time.sleep(rng.uniform(0.02, 0.4) * whole_seconds)
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                break
            killed += 1
        assert os.WEXITSTATUS(status) == 0, f"a resumed run failed with {status}"
        kills.append(killed)
        equal.append([(folder / name).read_bytes() for name in names] == expected)
    print(json.dumps({"kills": kills, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
