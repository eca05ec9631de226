"""Rebuild the README's tables from the committed configurations.

python scripts/reproduce.py                       # all tables: many hours on two cores
python scripts/reproduce.py ml-100k comparators   # these
python scripts/reproduce.py --list                # what there is

Each table goes to runs/reproduce/NAME as table.md, .csv and .png. What is finished is taken as it is: an interrupted
table goes on where it stopped. Last-FM has none here: every table has EASE in it, whose matrix of items takes 10.7 GB
there; its figures in the README come from ``graphrec train last-fm``, whose matrix is that of users.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from graphrec.cli import guarded
from graphrec.process import settle_process

OUT = Path("runs/reproduce")


@dataclass(frozen=True)
class Wanted:
    """One table.

    Args:
        data: The data set.
        models: The last is the one that the others are tested against.
        kg: A row each for every model that reads the knowledge graph.
        seeds: How many.
        remark: What it shows.
    """

    data: str
    models: tuple[str, ...]
    kg: tuple[str, ...]
    seeds: int
    remark: str


WITH_KG = ("full", "shuffled", "none")
TABLES = {
    "ml-100k": Wanted("ml-100k", ("Popularity", "ItemKNN", "EASE", "Blend"), WITH_KG, 3, "the demo's table"),
    "comparators": Wanted(
        "ml-100k",
        ("BPRMF", "IALS", "SoftmaxMF", "LightGCN", "CKE", "KGCN", "RippleNet", "KGAT", "KGIN", "InductiveKGAT"),
        ("full",),
        3,
        "published models beside ours",
    ),
    "mcclk-music": Wanted(
        "mcclk-music",
        ("ItemKNN", "RP3beta", "EASE", "ContentEASE", "BPRMF", "RippleNet", "KGAT", "KGIN", "KGCN", "InductiveKGAT"),
        ("full",),
        3,
        "click-through AUC and F1 beside full ranking",
    ),
    "alibaba-ifashion": Wanted(
        "alibaba-ifashion",
        ("ItemKNN", "RP3beta", "EASE", "Blend", "InductiveKGAT"),
        WITH_KG,
        1,
        "validation pairs; hours, 5 GB",
    ),
    "amazon-book": Wanted(
        "amazon-book", ("ItemKNN", "RP3beta", "EASE", "Blend"), ("full",), 1, "validation pairs; hours, 5 GB"
    ),
    "ml-1m": Wanted(
        "ml-1m", ("EASE", "SLIST", "InductiveKGAT", "Blend"), ("full",), 1, "in order of time; hours, 9 GB"
    ),
    **{
        name: Wanted(name, ("RP3beta", "EASE", "SLIST", "InductiveKGAT", "Blend"), ("full",), 1, "the same; 4 GB")
        for name in ("beauty", "sports", "toys")
    },
}


def main(argv: list[str]) -> None:
    """Make the tables that are asked for."""
    parser = argparse.ArgumentParser(description="Rebuild the README's tables from the committed configurations.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}; all when not given")
    parser.add_argument("--list", action="store_true", help="print what there is")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in TABLES]
    if unknown:
        parser.error(f"there is no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    if arguments.list:
        for name, wanted in TABLES.items():
            seeds = "1 seed" if wanted.seeds == 1 else f"{wanted.seeds} seeds"
            print(f"{name:<18} {', '.join(wanted.models)}; {seeds}; {wanted.remark}")
        return
    from graphrec.experiment.comparison import compare

    for name in arguments.names or TABLES:
        wanted = TABLES[name]
        print(f"{name}: {wanted.remark}", flush=True)
        table = compare(wanted.data, models=wanted.models, kg=wanted.kg, seeds=range(wanted.seeds), out=OUT / name)
        table.show()
        print(f"saved: {OUT / name}/table.md, .csv, .png\n")


if __name__ == "__main__":
    settle_process()
    sys.exit(guarded(main, sys.argv[1:]))
