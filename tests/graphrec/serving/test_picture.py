import re
from dataclasses import replace

import pytest

from graphrec.serving.explain import Explanation, PastItem, Path
from graphrec.serving.picture import draw_explanation

pytest.importorskip("matplotlib")

LONG = "Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb, with a second part that is as long"
PATHS = (
    Path(LONG, 2, "director", "m.1", "Stanley Kubrick", (), "director", 0.002, 0.9),
    Path("Heat $1 of $2", 0, "actor", "m.2", "", ("Alien", "Jaws"), "actor", 0.001, 0.8),
)
PAST = (PastItem("1", LONG, 2.0, 0.64), PastItem("2", "Heat", 0.1, 0.0321), PastItem("3", "Disliked", -1.0, 0.0))
WHY = Explanation("9", "Fargo", 3.0, 0.5, PAST, PATHS)


def texts(tmp_path, explanation):
    """All lines of text in the picture."""
    draw_explanation(explanation, tmp_path / "why.svg", "user 42")
    return re.findall("<!-- (.*?) -->", (tmp_path / "why.svg").read_text())


def test_nothing_is_cut_and_shares_are_in_per_cent(tmp_path):
    found = texts(tmp_path, WHY)
    assert found[:2] == ["Why Fargo?", "recommended to user 42"]
    assert "its summand of the score, in % of all that speaks for it; those shown are 67 %" in found
    assert f"{LONG} 64 % Heat 3.2 % What the knowledge graph says" in " ".join(found)
    told = f"same director as {LONG} and 2 more you took: Stanley Kubrick 100 % "
    told += "same actor as Heat $1 of $2 (also Alien, Jaws) 50 %"
    assert " ".join(found).endswith(told)
    assert "Disliked" not in found


@pytest.mark.parametrize("explanation", [WHY, replace(WHY, title=LONG, past=PAST[1:] * 4, paths=PATHS * 3)])
def test_no_text_covers_another_or_leaves_the_picture(tmp_path, monkeypatch, explanation):
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
    draw_explanation(explanation, tmp_path / "why.png", "user 42")
    (axis,) = figures[0].axes
    boxes = [text.get_window_extent() for text in axis.texts]
    assert all(axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and 0 < box.y0 for box in boxes)
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_a_model_without_a_graph_and_a_history_that_says_nothing(tmp_path):
    found = texts(tmp_path, replace(WHY, paths=()))
    assert "What the knowledge graph says" not in found
    found = texts(tmp_path, replace(WHY, past=PAST[2:], paths=()))
    assert found[-1] == "nothing in the history speaks for it: it is popular"


def test_what_leaving_out_does_is_in_parts_of_what_the_history_adds(tmp_path):
    paths = tuple(replace(path, effect=effect) for path, effect in zip(PATHS, (0.5, 0.025), strict=True))
    found = texts(tmp_path, replace(WHY, paths=paths, method="leave-one-out"))
    assert "the fall of the score without it, in % of all that speaks for it; those shown are 67 %" in found
    assert "the fall of the score without the path, in % of all that your history adds to it" in found
    assert [line for line in found if line.endswith(" %") and line[0].isdigit()] == ["64 %", "3.2 %", "20 %", "1.0 %"]


def test_a_model_that_cannot_tell(tmp_path):
    found = texts(tmp_path, replace(WHY, past=(), paths=(), method="none"))
    assert found[-1].startswith("the model keeps a vector of its own for this user")


def test_a_png(tmp_path):
    draw_explanation(replace(WHY, title=LONG), tmp_path / "why.png", "a stranger")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
