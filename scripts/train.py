"""Train a model, measure it, and save the run: what ``graphrec train`` does, from top to bottom.

$ python scripts/train.py ml-100k
$ python scripts/train.py alibaba-ifashion --model InductiveKGAT --model.dim 64 --seed 1 --train.epochs 5

Read it as the table of contents of the library, or copy it and change what you like.
"""

import argparse
import sys

from graphrec.cli import guarded
from graphrec.experiment.build import build_evaluator
from graphrec.experiment.data import load_graph, prepare, resolve
from graphrec.experiment.folder import RunFolder
from graphrec.experiment.reading import read_options
from graphrec.experiment.runner import default_out, measure, reset_peak_memory, summary, training_log
from graphrec.models import MODELS
from graphrec.process import settle_process
from graphrec.training import Trainer


def main(dataset: str, options: list[str]) -> None:
    """Train on a data set with options as on the command line."""
    # Settings: the committed YAML of this data set and model, then the options, then the constructors' defaults.
    config = read_options(options, dataset).config

    # Files become a graph: users, items, what they took, what is known of the items, and a knowledge graph around them.
    graph = load_graph(config.data)
    config = resolve(config, graph)  # what was left open, such as the split, is decided here and written down
    graph = prepare(graph, config)  # split into train, valid and test
    print(graph)

    # A folder for all that comes out. Started again after a kill, it goes on where it was.
    folder = RunFolder.start(default_out(config), config, graph)
    if folder.finished:
        sys.exit(f"{folder.path} is finished; delete it to train again")
    reset_peak_memory()

    # A model: it scores every item for a history of items.
    model = MODELS[config.model.name].from_graph(graph, **config.model.options)
    print(model)

    # Training selects on the validation part, then starts anew on train and validation together (or does one of both).
    evaluator = build_evaluator(config)
    with training_log(folder.path) as on_record:
        trainer = Trainer(config.train, seed=config.seed)
        result = trainer.fit(model, graph, evaluator, run_dir=folder.path, on_record=on_record)

    # The test part, where there is one, is looked at once: now.
    measured = measure(model, graph, evaluator, refitted=config.train.refit)
    for part, evaluation in measured.items():
        print(f"{part}: {evaluation}")
    per_user = {part: (evaluation.users, evaluation.per_user) for part, evaluation in measured.items()}
    folder.finish(model, summary(result, measured), per_user)
    valid = "  ".join(f"{name} {value:.4f}" for name, value in result.valid.items())
    print(f"valid, when the model was selected: {valid or 'nothing was selected'}")
    print(f"run folder: {folder.path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        usage="python scripts/train.py NAME_OR_PATH [--model NAME] [--model.OPTION VALUE] [--seed N] ...",
        description=__doc__,
        epilog="The options are those of graphrec train.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="NAME_OR_PATH", help="a known data set, or a folder")
    settle_process()
    sys.exit(guarded(main, parser.parse_args(sys.argv[1:2]).dataset, sys.argv[2:]))
