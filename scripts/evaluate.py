"""Measure a finished run again, from its weights and its data set.

python scripts/evaluate.py runs/ml-100k/inductivekgat-seed0-0123456789
"""

import argparse
import sys

from graphrec.cli import guarded
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.data import load_graph, prepare
from graphrec.experiment.folder import RunFolder
from graphrec.process import settle_process
from kg_loaders.graph import Split


def main(run_dir: str) -> None:
    """Print the metrics of a run folder."""
    folder = RunFolder.open(run_dir)
    graph = prepare(load_graph(folder.config.data), folder.config)
    model = folder.load_model(graph)  # checks that weights and data are those of the run

    # After the final fit on train and validation, only the test part is new to the model.
    split: Split = "test" if graph.has_split("test") else "valid"
    print(f"{split}: {build_evaluator(folder.config).evaluate(model, graph, split=split)}")
    if split == "valid" and folder.config.train.refit:
        honest = "an honest figure is in metrics.json" if folder.config.train.select else "this figure flatters it"
        print(f"the model has been fitted to these very pairs; {honest}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="a run folder")
    settle_process()
    sys.exit(guarded(main, parser.parse_args().run))
