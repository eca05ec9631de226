"""Files of item features beside a data set: ``data.features``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphrec.encoders.vectors import read_item_features
from graphrec.errors import ConfigError
from graphrec.experiment.config import DataConfig
from kg_loaders import RecGraph
from kg_loaders.registry import data_folder


def add_features(graph: RecGraph, data: DataConfig) -> RecGraph:
    """Return the graph with the features in ``data.features``; of one name, that of the last file counts.

    Args:
        graph: The data set as its files hold it.
        data: Names the files, as paths or within the data set's folder in ``$GRAPHREC_DATA``.

    Raises:
        ConfigError: There is no such file.
        FormatError: A file is damaged or does not fit the items.
    """
    features = dict(graph.item_features)
    for name in data.features:
        features |= read_item_features(find_file(name, data.name), graph.items)
    return replace(graph, item_features=features) if data.features else graph


def find_file(name: str, dataset: str) -> Path:
    """Return where a file of features lies.

    Raises:
        ConfigError: Nowhere.
    """
    tried = [Path(name).expanduser(), Path(dataset).expanduser() / name]
    if (own := data_folder()) is not None:
        tried.append(own / dataset / name)
    for path in tried:
        if path.is_file():
            return path
    raise ConfigError(f"data.features: no such file {name!r}; looked for {', '.join(map(str, tried))}")
