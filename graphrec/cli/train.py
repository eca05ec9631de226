"""``graphrec train NAME_OR_PATH``: train a model, measure it, and save the run."""

from __future__ import annotations

from graphrec.cli.common import print_json, print_metrics, say, split_arguments
from graphrec.errors import ConfigError

USAGE = """\
usage: graphrec train [NAME_OR_PATH] [--model NAME] [--model.OPTION VALUE] [--config FILE.yaml] [--seed N] [--out DIR]
                      [--data.OPTION VALUE] [--train.OPTION VALUE] [--eval.OPTION VALUE] [--json]

Train a model, measure it, and save the run. A name alone uses the best configuration known for that data set. Of the
places that can set a value, the command line comes before the file, and the file before the constructor's default.

  NAME_OR_PATH          a known data set, or a folder; --config may name it instead
  --model NAME          the model; its own options follow with --model NAME --help
  --config FILE.yaml    settings from a file instead of the committed ones
  --wandb PROJECT       also write curves for Weights & Biases, offline unless WANDB_MODE says otherwise; extra "wandb"
  --json                print JSON for machines
"""


def main(argv: list[str]) -> None:
    """Run the command."""
    words, options, flags = split_arguments(argv, flags=("--json", "--help", "-h"))
    from graphrec.experiment.reading import help_text, read_options, take_option

    if flags & {"--help", "-h"}:
        print(USAGE)
        print(help_text(take_option(options, "model", "model.name")[1]))
        return
    if len(words) > 1:
        raise ConfigError(f"train takes one data set, got {' '.join(words)}; see graphrec train --help")
    options, wandb = take_option(options, "wandb")
    read = read_options(options, words[0] if words else None)

    from graphrec.experiment.runner import run

    say(f"settings: {read.origin}")
    folder = run(read.config, wandb=wandb)
    metrics = folder.metrics
    if "--json" in flags:
        print_json({"run": str(folder.path), **metrics})
        return
    measured: dict[str, dict[str, float]] = {part: metrics[part] for part in ("valid", "test") if part in metrics}
    if measured:
        print_metrics(measured)
    else:
        print("nothing measured: the model was trained on train and validation at once, and there is no test part")
    if len(measured) == 2 and folder.config.train.refit:
        print("valid: before the refit on train and validation; test: after it")
    if folder.config.model.options.get("request_time"):
        print("the model was told when each user took the first item asked for: compare it with others that are told")
    seconds = metrics["seconds"]["train"]
    print(f"\ntrained  {seconds:.1f} s, peak memory {metrics['peak_memory_mb']:.0f} MB")
    if metrics["chosen"]:
        print(f"chosen   {', '.join(f'{name} = {value:g}' for name, value in metrics['chosen'].items())}")
    print(f"run      {folder.path}")
    made = {"log.jsonl": "log", "tensorboard": "curves", "wandb": "wandb", "model.safetensors": "weights"}
    for name, what in made.items():
        if (folder.path / name).exists():
            print(f"{what:<8} {folder.path / name}")
    print(f"next     graphrec recommend {folder.path} --all-users -k 20 --output top.tsv")
