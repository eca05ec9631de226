"""create_app: the routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Response
from pydantic import BaseModel

import graphrec
from graphrec.errors import ArgumentError, GraphrecError
from graphrec.serving.live import LiveRecommender
from graphrec.serving.online import report
from graphrec.serving.recommender import Recommendation
from graphrec.serving.server import schemas
from graphrec.serving.server.guard import PAGE_FILES, Guard, Limits, Log
from graphrec.serving.server.keys import KeyRing
from graphrec.serving.server.metrics import Metrics
from graphrec.serving.server.problems import MEDIA_TYPE, add_handlers, problem
from graphrec.serving.server.routes import BodyRoute
from graphrec.serving.server.service import Service

MEDIA_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css"}
REASONS = {
    400: "The body is no JSON.",
    401: "The key is missing or wrong.",
    403: "The key's scope is too small, or the service is read-only.",
    404: "There is no such user, item or model.",
    408: "The body came too slowly.",
    409: "The event's own id is that of another event.",
    413: "The body is too long.",
    415: "The body is not application/json.",
    421: "The host name is not one of this service.",
    422: "A value is not valid.",
    429: "The key's rate is used up.",
    500: "An error of ours.",
    503: "No answer in time, or the disk refuses.",
}
ALWAYS = (401, 421, 429, 500, 503)
BODY = (400, 403, 404, 408, 413, 415, 422)


def create_app(
    service: Service,
    keys: KeyRing | None = None,
    hosts: Collection[str] | None = None,
    limits: Limits | None = None,
    log: Log | None = None,
) -> FastAPI:
    """Return the web application of a service.

    Args:
        service: Models and store; closed when the application shuts down.
        keys: API keys; ``None`` asks for none.
        hosts: Host names to answer under; ``None`` for any.
        limits: What a request may cost.
        log: Writes a line for each request; ``None`` writes none.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="graphrec",
        version=graphrec.__version__,
        summary="Recommendations from a run, explained, that heed new events and new items at once.",
        docs_url=None,  # their scripts come from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.router.route_class = BodyRoute
    metrics = Metrics()
    add_handlers(app, log)
    _add_questions(app, service)
    _add_changes(app, service, metrics)
    _add_operations(app, service, metrics, keys is not None)
    paths = [str(getattr(route, "path", "")) for route in app.routes]
    app.add_middleware(Guard, metrics=metrics, routes=paths, hosts=hosts, keys=keys, limits=limits, log=log)
    _document(app, keys is not None)
    return app


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", response_model=schemas.RecommendResponse, responses=_problems(*BODY))
    async def recommend(request: schemas.RecommendRequest) -> Response:
        """Rank what a user or a stranger has not taken yet."""
        shown = await service.recommend(request)
        return _json(
            {
                "model": shown.model,
                "items": _listed(shown.items),
                "num_past": shown.num_past,
                "novelty": shown.novelty,
                "list_id": shown.list_id,
            }
        )

    @app.post("/explain", response_model=schemas.ExplainResponse, responses=_problems(*BODY))
    async def explain(request: schemas.ExplainRequest) -> Response:
        """Say which past items and which facts of the knowledge graph a score leans on."""
        served = service.model(request.model)
        why = await _work(service, served.live.explain, request.item, request.user_id, request.history, request.k)
        return _json({"model": served.name, **why.to_dict()})

    @app.post("/similar", response_model=schemas.SimilarResponse, responses=_problems(*BODY))
    async def similar(request: schemas.SimilarRequest) -> Response:
        """Find the items most like one."""
        served = service.model(request.model)
        found = await _work(service, served.live.similar, request.item, request.k)
        return _json({"model": served.name, "items": _listed(found)})

    @app.post("/history", response_model=schemas.HistoryResponse, responses=_problems(*BODY))
    async def history(request: schemas.HistoryRequest) -> Response:
        """Return what is known of a user's past."""
        live = service.model(request.model).live
        known = live.known(request.user_id)
        return _json(
            {
                "num_past": len(known.past),
                "items": _titles(live, known.past[-request.limit :].tolist()),
                "liked": live.graph.items.ids_of(known.change.liked),
                "disliked": _titles(live, sorted(known.change.disliked)),
            }
        )

    @app.get("/items", response_model=schemas.TitlesResponse, responses=_problems(404, 422))
    async def search_items(
        query: Annotated[str, Query(min_length=1, max_length=200, examples=["toy"])],
        limit: Annotated[int, Query(ge=1, le=50)] = 10,
    ) -> Response:
        """Search items by a part of their title, or by id."""
        live = service.widest.live
        return _json({"items": _titles(live, await _work(service, live.search_items, query, limit))})

    @app.get("/users", response_model=schemas.UsersResponse, responses=_problems(422))
    async def search_users(
        query: Annotated[str, Query(max_length=200, examples=["4"])] = "",
        limit: Annotated[int, Query(ge=1, le=50)] = 10,
    ) -> Response:
        """Search users by the beginning of their id."""
        return _json({"users": await _work(service, service.model(None).live.search_users, query, limit)})


def _add_changes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    refused = problem(403, "this service is read-only")

    @app.post("/events", status_code=201, response_model=schemas.EventsResponse, responses=_problems(*BODY, 409))
    async def events(request: schemas.EventsRequest) -> Response:
        """Keep events. After the answer they are on disk, and every list heeds them.

        Sent again after a lost answer, events with ids of their own count once and a guest keeps the same user id.
        """
        if service.store is None:
            return refused
        clicks = []
        for event in request.events:
            if event.kind == "click":
                assert event.list_id is not None
                clicks.append(event.click(*await _work(service, service.click, event.list_id, event.item_id)))
        asked = [event for event in request.events if event.kind != "click"]
        by_guest = [event for event in asked if event.user_id is None]
        sent_before = [event.event_id for event in by_guest if event.event_id is not None]
        async with service.guests:
            guest = await _work(service, service.store.find_guest, sent_before) if sent_before else None
            guest = guest or service.model(None).live.new_user_id()
            events = [event.event(guest) for event in asked]
            service.check_events(events)
            written = service.store.add_events(events, clicks)
        new = await asyncio.shield(asyncio.wrap_future(written))
        metrics.count_events([event.kind for event in request.events])
        return _json({"new": new, "user_id": guest if by_guest else None}, 201)

    @app.post("/items", status_code=201, response_model=schemas.ItemsResponse, responses=_problems(*BODY))
    async def items(request: schemas.ItemsRequest) -> Response:
        """Let items join. After the answer they are on disk, and every list may hold them."""
        if service.store is None:
            return refused
        takers = [served.live for served in service.models.values() if served.live.takes_items]
        if not takers:
            raise ArgumentError("no served model can rank items that it was not trained with; InductiveKGAT can")
        items = [item.new_item() for item in request.items]
        for live in takers:
            new = await _work(service, live.check_new, items)
        count = await asyncio.shield(asyncio.wrap_future(service.store.add_items(new)))
        metrics.count_items(count)
        return _json({"new": count}, 201)

    @app.post("/reload", response_model=schemas.ModelOut, responses=_problems(*BODY))
    async def reload(request: schemas.ReloadRequest) -> Response:
        """Load another run in a model's place, without a request that fails for it."""
        if service.read_only:
            return refused
        try:
            served = await asyncio.shield(service.reload(request.model, request.run))
        except GraphrecError:
            metrics.count_reload("failed")
            raise
        metrics.count_reload("done")
        return _json(served.describe().model_dump())


def _add_operations(app: FastAPI, service: Service, metrics: Metrics, with_keys: bool) -> None:
    @app.get("/health", response_model=schemas.HealthResponse, responses=_problems())
    async def health() -> Response:
        """Say that the service is ready, and with what."""
        return _json(
            {
                "status": "ok",
                "version": graphrec.__version__,
                "read_only": service.read_only,
                "keys": with_keys,
                "records": service.records,
                "interleaves": service.interleaves,
                "models": [served.describe().model_dump() for served in service.models.values()],
            }
        )

    @app.get("/report", response_model=schemas.ReportResponse, responses=_problems(403, 422))
    async def online_report(days: Annotated[float | None, Query(ge=0, le=36500)] = None) -> Response:
        """Say what users did with the lists that were kept: clicks, dwell, and which of two models they prefer."""
        if service.store is None:
            return problem(403, "this service is read-only")
        return _json((await _work(service, report, service.store.select, days)).to_dict())

    @app.get("/metrics", response_class=Response, responses={**_problems(), 200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Return what Prometheus collects."""
        coverage = {served.name: served.describe().coverage for served in service.models.values()}
        return Response(
            metrics.text(coverage, service.lists_lost), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    folder = files("graphrec.serving") / "page"
    for path, name in PAGE_FILES.items():
        content = (folder / name).read_bytes()
        app.get(path, include_in_schema=False)(_file(content, MEDIA_TYPES[name.rpartition(".")[2]]))


def _file(content: bytes, media_type: str) -> Callable[[], Any]:
    async def send() -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return send


async def _work(service: Service, call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(service.working, call, *arguments)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _listed(found: list[Recommendation]) -> list[dict[str, Any]]:
    return [{"rank": item.rank, "item_id": item.item_id, "title": item.title, "score": item.score} for item in found]


def _titles(live: LiveRecommender, items: list[int]) -> list[dict[str, str]]:
    graph = live.graph
    return [{"item_id": graph.items.id_of(item), "title": graph.item_labels[item]} for item in items]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": REASONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*ALWAYS, *statuses})
    }


def _document(app: FastAPI, with_keys: bool) -> None:
    """Complete the OpenAPI document by what routes do not say: the shape of problems, and the keys."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = _schema(schemas.Problem)
            if with_keys:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                for path, methods in document["paths"].items():
                    for operation in methods.values():
                        operation["security"] = [] if path == "/health" else [{"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template="#/components/schemas/{model}")
