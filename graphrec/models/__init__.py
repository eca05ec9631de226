"""Recommenders, from popularity to the flagship."""

from graphrec.models.base import ClosedFormRecommender, GradientRecommender, Recommender
from graphrec.models.blend import Blend
from graphrec.models.ease import EASE
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.item_knn import ItemKNN
from graphrec.models.mf import SoftmaxMF
from graphrec.models.popularity import Popularity

MODELS: dict[str, type[Recommender]] = {
    "Blend": Blend,
    "EASE": EASE,
    "InductiveKGAT": InductiveKGAT,
    "ItemKNN": ItemKNN,
    "Popularity": Popularity,
    "SoftmaxMF": SoftmaxMF,
}
"""Every model that a configuration or the command line can name."""

__all__ = [
    "EASE",
    "MODELS",
    "Blend",
    "ClosedFormRecommender",
    "GradientRecommender",
    "InductiveKGAT",
    "ItemKNN",
    "Popularity",
    "Recommender",
    "SoftmaxMF",
]
