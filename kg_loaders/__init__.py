"""Knowledge graphs and interactions, from files to one checked form: RecGraph."""

from kg_loaders.errors import (
    DownloadError,
    FormatError,
    GraphError,
    KGLoaderError,
    UnknownDatasetError,
    UnknownIdError,
)
from kg_loaders.graph import SPLITS, Feature, Interactions, RecGraph, sort_interactions
from kg_loaders.linked_pair import LinkedPair
from kg_loaders.linking import link
from kg_loaders.registry import load
from kg_loaders.vocabulary import Vocabulary

__all__ = [
    "SPLITS",
    "DownloadError",
    "Feature",
    "FormatError",
    "GraphError",
    "Interactions",
    "KGLoaderError",
    "LinkedPair",
    "RecGraph",
    "UnknownDatasetError",
    "UnknownIdError",
    "Vocabulary",
    "link",
    "load",
    "sort_interactions",
]
