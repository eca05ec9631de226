"""The routes, asked over HTTP as a client asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cases.served_runs import Client

from graphrec.serving.recommender import RunRecommender


@pytest.fixture(scope="module")
def run(runs: tuple[Path, Path]) -> RunRecommender:
    return RunRecommender.load(runs[0])


def ids(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_health_says_what_is_served(client: Client, run: RunRecommender) -> None:
    status, health = client.get("/health")
    assert (status, health["status"], health["read_only"], health["keys"]) == (200, "ok", False, False)
    first, second = health["models"]
    assert (first["name"], first["kind"], first["takes_items"]) == ("inductivekgat", "InductiveKGAT", True)
    assert (second["name"], second["kind"], second["takes_items"]) == ("ease", "EASE", False)
    assert first["num_users"] == run.graph.num_users


def test_known_user_and_stranger_get_the_runs_lists(client: Client, run: RunRecommender) -> None:
    user = run.graph.users.id_of(11)
    status, answer = client.post("/recommend", {"user_id": user, "k": 7})
    expected = run.recommend(user_id=user, k=7)
    assert (status, answer["model"]) == (200, "inductivekgat")
    assert ids(answer) == [item.item_id for item in expected]
    assert [item["rank"] for item in answer["items"]] == list(range(1, 8))
    assert [item["score"] for item in answer["items"]] == pytest.approx([item.score for item in expected], abs=1e-5)
    history = list(run.graph.items)[:2]
    _, answer = client.post("/recommend", {"history": history, "k": 3, "exclude": [history[0]]})
    assert ids(answer) == [item.item_id for item in run.recommend(history=history, k=3)]
    assert answer["num_past"] == 2


def test_two_models_answer_side_by_side(client: Client, run: RunRecommender, runs: tuple[Path, Path]) -> None:
    user = run.graph.users.id_of(12)
    ease = RunRecommender.load(runs[1])
    _, answer = client.post("/recommend", {"user_id": user, "k": 5, "model": "ease"})
    assert answer["model"] == "ease"
    assert ids(answer) == [item.item_id for item in ease.recommend(user_id=user, k=5)]


def test_explanation_is_the_runs_own(client: Client, run: RunRecommender) -> None:
    from graphrec.serving.explain import explain

    user = run.graph.users.id_of(13)
    item = run.recommend(user_id=user, k=1)[0]
    status, answer = client.post("/explain", {"user_id": user, "item": item.item_id})
    expected = explain(run, run.histories(user), item.item_index).to_dict()
    assert status == 200
    assert answer["sentences"] == expected["sentences"]
    assert answer["paths"] == [{**path, "known_from": list(path["known_from"])} for path in expected["paths"]]


def test_event_is_heeded_by_the_next_list_of_both_models(client: Client, run: RunRecommender) -> None:
    user = run.graph.users.id_of(14)
    first = ids(client.post("/recommend", {"user_id": user})[1])
    event = {"user_id": user, "item_id": first[0], "event_id": "once"}
    assert client.post("/events", {"events": [event]}) == (201, {"new": 1, "user_id": None})
    assert client.post("/events", {"events": [event]}) == (201, {"new": 0, "user_id": None})
    for model in ("inductivekgat", "ease"):
        assert first[0] not in ids(client.post("/recommend", {"user_id": user, "model": model})[1])
    _, history = client.post("/history", {"user_id": user, "limit": 1})
    assert history["items"][0]["item_id"] == first[0]
    assert (history["liked"], history["disliked"]) == ([first[0]], [])


def test_somebody_new_gets_an_id_and_a_list(client: Client, run: RunRecommender) -> None:
    items = list(run.graph.items)[3:6]
    status, answer = client.post("/events", {"events": [{"item_id": item} for item in items]})
    assert (status, answer["new"]) == (201, 3)
    _, found = client.post("/recommend", {"user_id": answer["user_id"], "k": 4})
    assert ids(found) == [item.item_id for item in run.recommend(history=items, k=4)]
    assert client.get(f"/users?query={answer['user_id'][:10]}")[1]["users"] == [answer["user_id"]]


def test_guest_who_sends_again_keeps_their_id(client: Client, run: RunRecommender) -> None:
    item, other = list(run.graph.items)[7:9]
    events = [{"item_id": item, "event_id": "guest-1"}]
    status, answer = client.post("/events", {"events": events})
    assert (status, answer["new"]) == (201, 1)
    assert client.post("/events", {"events": events}) == (201, {"new": 0, "user_id": answer["user_id"]})
    events.append({"item_id": other, "event_id": "guest-2"})
    assert client.post("/events", {"events": events}) == (201, {"new": 1, "user_id": answer["user_id"]})
    assert client.post("/history", {"user_id": answer["user_id"]})[1]["num_past"] == 2


def test_another_event_under_the_same_id_is_refused(client: Client, run: RunRecommender) -> None:
    item, other = list(run.graph.items)[7:9]
    event = {"user_id": run.graph.users.id_of(17), "item_id": item, "event_id": "only-one"}
    assert client.post("/events", {"events": [event]})[0] == 201
    for change in ({"user_id": run.graph.users.id_of(18)}, {"item_id": other}, {"kind": "undo"}, {"user_id": None}):
        status, problem = client.post("/events", {"events": [{**event, **change}]})
        assert (status, problem["detail"]) == (409, "event_id 'only-one' is that of another event")


def test_item_joins_and_is_found_at_once(client: Client, run: RunRecommender) -> None:
    graph = run.graph
    facts = [
        {"relation": graph.relations.id_of(r), "entity": graph.entities.id_of(t)}
        for h, r, t in graph.triples.tolist()
        if h == 2
    ]
    item = {"item_id": "new-film", "title": "A Film of Today", "facts": facts}
    assert client.post("/items", {"items": [item]}) == (201, {"new": 1})
    assert client.post("/items", {"items": [item]}) == (201, {"new": 0})
    assert client.get("/items?query=of%20today")[1] == {"items": [{"item_id": "new-film", "title": "A Film of Today"}]}
    assert ids(client.post("/similar", {"item": "new-film", "k": 3})[1])
    _, everything = client.post("/recommend", {"user_id": graph.users.id_of(15), "k": 100})
    assert "new-film" in ids(everything)
    status, problem = client.post("/items", {"items": [{**item, "title": "Another"}]})
    assert status == 422
    assert "has joined already" in problem["detail"]
    models = client.get("/health")[1]["models"]
    assert [(model["num_joined"], model["left_out"]) for model in models] == [(1, 0), (0, 1)]


@pytest.mark.parametrize(
    ("path", "content", "status", "detail"),
    [
        ("/recommend", {"user_id": "nobody"}, 404, "there is no such user"),
        ("/recommend", {"history": ["no such"]}, 404, "no item has the id or title 'no such'"),
        ("/recommend", {"user_id": "user-01", "model": "no-such"}, 404, "there is no model 'no-such'; served are"),
        ("/recommend", {}, 422, "give either user_id or history"),
        ("/recommend", {"user_id": "user-01", "k": 0}, 422, "body.k: Input should be greater than or equal to 1"),
        ("/recommend", {"user_id": "user-01", "top": 3}, 422, "body.top: Extra inputs are not permitted"),
        ("/recommend", {"user_id": "user-01\n"}, 422, "body.user_id: String should match pattern"),
        ("/explain", {"user_id": "user-01", "item": "no such"}, 404, "no item has"),
        ("/events", {"events": []}, 422, "body.events: List should have at least 1 item"),
        ("/events", {"events": [{"item_id": "no such"}]}, 404, "there is no item 'no such'"),
        ("/history", {"user_id": "nobody"}, 404, "there is no such user"),
    ],
)
def test_mistake_is_a_problem_that_says_what_is_wrong(
    client: Client, path: str, content: dict[str, object], status: int, detail: str
) -> None:
    got, problem = client.post(path, content)
    assert got == status
    assert client.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert detail in problem["detail"]


@pytest.mark.parametrize("body", [b"", b"{bad", b'{"user_id": "user-01"'])
def test_a_body_that_is_no_json_gets_the_documented_400(client: Client, body: bytes) -> None:
    for path in ("/recommend", "/events"):
        status, problem = client.post(path, body)
        assert (status, problem["status"]) == (400, 400)
        assert problem["detail"].startswith("the body is no JSON: Invalid JSON: ")
        assert client.headers["content-type"] == "application/problem+json"
    assert client.post("/recommend", b"null")[0] == 422  # JSON, and no question


def test_unknown_path_and_method_are_problems(client: Client) -> None:
    for status, path in ((404, "/nowhere"), (405, "/recommend")):
        got, problem = client.get(path)
        assert (got, problem["status"]) == (status, status)
        assert client.headers["content-type"] == "application/problem+json"


def test_metrics_count_requests_without_naming_anybody(client: Client, run: RunRecommender) -> None:
    user = run.graph.users.id_of(16)
    client.post("/recommend", {"user_id": user})
    client.get("/a/path/of/a/stranger")
    status, text = client.get("/metrics")
    assert status == 200
    assert 'graphrec_requests_total{method="POST",route="/recommend",status="200"}' in text
    assert 'route="other",status="404"' in text
    coverage = re.search(r'^graphrec_coverage{model="inductivekgat"} (.*)$', text, re.MULTILINE)
    assert coverage is not None
    assert 0 < float(coverage[1]) <= 1
    assert user not in text
    assert "stranger" not in text


def test_openapi_has_an_example_for_every_body(client: Client) -> None:
    _, document = client.get("/openapi.json")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            if "requestBody" in operation:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert document["components"]["schemas"][name]["examples"], path
            assert "application/problem+json" in operation["responses"]["500"]["content"], path
