"""The main job on real data, as make demo runs it: a table, ten films for a user and for a stranger, and why."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from graphrec.experiment.comparison import compare
from graphrec.process import settle_process
from graphrec.serving.explain import explain
from graphrec.serving.picture import draw_explanation
from graphrec.serving.recommender import RunRecommender

OUT = Path("runs/demo")
USER = "42"
STRANGER = ["Toy Story", "Star Wars", "Fargo"]


def main() -> None:
    """Compare, recommend, explain."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # no options, but --help
    start = time.perf_counter()
    print("MovieLens-100k with its Freebase KG: popularity, ItemKNN and EASE against Blend, which is InductiveKGAT")
    print(
        "(attention over the graph and over histories) with a share of RDLAE, a closed form to which each entity is a"
    )
    print("user who took its films.\n")
    table = compare(
        "ml-100k",
        models=["popularity", "item-knn", "ease", "blend"],
        kg=["full", "shuffled", "none"],
        seeds=range(3),
        out=OUT,
    )
    print()
    table.show()

    run = next(row.runs[0] for row in table.rows if row.model == "Blend" and row.kg == "full")
    recommender = RunRecommender.load(run)
    print(f"\nTen films for user {USER}, who took {len(recommender.histories(USER).items)}:")
    picture = show(recommender, user_id=USER)
    print(f"\nTen films for a stranger who named {', '.join(STRANGER)}:")
    show(recommender, history=STRANGER)

    print(f"\nrun folder  {run}")
    print(f"curves      tensorboard --logdir {run}/tensorboard")
    print(f"attention   {picture}")
    print(f"table       {OUT}/table.md, .csv, .png")
    print(f"\ndone in {time.perf_counter() - start:.0f} s")


def show(recommender: RunRecommender, user_id: str | None = None, history: list[str] | None = None) -> Path:
    """Print ten recommendations with their strongest reasons, and draw the first."""
    histories = recommender.histories(user_id, history)
    who = f"user {user_id}" if user_id else "a stranger"
    picture = OUT / f"attention-{who.replace(' ', '-')}.png"
    for film in recommender.recommend_to(histories, k=10):
        why = explain(recommender, histories, film.item_index, k=5)
        print(f"{film.rank:>3}  {film.title}")
        for reason in dict.fromkeys([*why.sentences[:1], *map(str, why.paths[:1])]):
            print(f"       {reason}")
        if film.rank == 1:
            draw_explanation(why, picture, who)
    return picture


if __name__ == "__main__":
    settle_process()
    main()
