"""Pictures of runs, attention and graphs: readable at half width, in colours for every eye, titled with their origin.

Each function draws on the ``ax`` it is given, or on a new figure of pyplot's, and returns the axes. They need the
extra "plots".
"""

from graphrec.experiment.pictures.attention import attention_shares
from graphrec.experiment.pictures.curves import learning_curves, metric_curves, metric_intervals, precision_recall
from graphrec.experiment.pictures.graphs import graph_schema, kg_paths, neighbourhood
from graphrec.experiment.pictures.overlap import domain_overlap
from graphrec.experiment.pictures.style import About

__all__ = [
    "About",
    "attention_shares",
    "domain_overlap",
    "graph_schema",
    "kg_paths",
    "learning_curves",
    "metric_curves",
    "metric_intervals",
    "neighbourhood",
    "precision_recall",
]
