import pytest
import torch
from cases.graphs import histories_of, planted_graph, with_content

from graphrec.histories import Histories
from graphrec.models import EASE, InductiveKGAT
from graphrec.serving.explain import explain
from graphrec.serving.modality_effects import ModalityEffect, effects_on
from graphrec.serving.recommender import RunRecommender

HISTORY = Histories.from_lists([[2, 7]])


def test_an_explanation_says_what_each_modality_does() -> None:
    graph = with_content(planted_graph())
    torch.manual_seed(0)
    model = InductiveKGAT.from_graph(graph, dim=8, modalities=["image", "audio"], fusion_gate=1.0).eval()
    why = explain(RunRecommender(model, graph), HISTORY, item=3, method="contributions")
    assert {effect.name for effect in why.modalities} == {"image", "audio"}
    sizes = [abs(effect.effect) for effect in why.modalities]
    assert sizes == sorted(sizes, reverse=True)
    assert str(why.modalities[0]) in why.sentences
    assert why.to_dict()["modalities"][0]["name"] == why.modalities[0].name
    assert [path["sentence"] for path in why.to_dict()["paths"]] == [str(path) for path in why.paths] != []
    assert why.base + sum(p.contribution for p in why.past) == pytest.approx(why.score, abs=1e-5)


def test_models_without_modalities_have_none() -> None:
    graph = planted_graph()
    model = EASE.from_graph(graph, l2=10.0)
    model.fit(histories_of(graph))
    assert effects_on(model.eval(), HISTORY, 3) == ()
    assert explain(RunRecommender(model, graph), HISTORY, item=3).modalities == ()


def test_effects_are_said_with_their_direction() -> None:
    assert str(ModalityEffect("text", -0.126)) == "its text takes 0.13 from the score"
