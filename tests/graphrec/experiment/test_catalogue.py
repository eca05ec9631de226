from __future__ import annotations

from pathlib import Path

import pytest

import graphrec
from graphrec.errors import ConfigError
from graphrec.experiment import catalogue
from graphrec.experiment.catalogue import committed, committed_files, find_committed, read_yaml

real_root = catalogue.configs_root


def test_a_checkout_has_its_configurations_in_scripts() -> None:
    assert real_root() == Path(graphrec.__file__).parents[1] / "scripts" / "configs"


def test_a_wheel_has_them_inside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "graphrec" / "configs").mkdir(parents=True)
    monkeypatch.setattr(graphrec, "__file__", str(tmp_path / "graphrec" / "__init__.py"))
    assert real_root() == tmp_path / "graphrec" / "configs"


def test_files_are_found_whatever_the_spelling_of_the_model(configs: Path) -> None:
    (configs / "films").mkdir()
    file = configs / "films" / "inductive_kgat.yaml"
    file.write_text("model: InductiveKGAT")
    assert find_committed("films", "InductiveKGAT") == file
    assert find_committed("films", "EASE") is None
    assert find_committed("books", "InductiveKGAT") is None
    assert committed_files() == [file]
    assert committed("films") == ({"model": "InductiveKGAT"}, file)


def test_a_name_alone_stands_for_the_default_of_the_data_set_and_else_for_the_flagship(configs: Path) -> None:
    (configs / "films").mkdir()
    flagship, blend = configs / "films" / "inductive_kgat.yaml", configs / "films" / "blend.yaml"
    flagship.write_text("model: InductiveKGAT")
    blend.write_text("model: Blend")
    assert committed("films") == ({"model": "InductiveKGAT"}, flagship)
    blend.write_text("default: true\nmodel: Blend")
    assert committed("films") == ({"model": "Blend"}, blend)
    assert committed("films", "InductiveKGAT") == ({"model": "InductiveKGAT"}, flagship)


def test_a_line_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1\nb: [\n")
    with pytest.raises(ConfigError, match=r"a.yaml:3: not valid YAML"):
        read_yaml(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(file)
