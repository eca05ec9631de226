"""What the service is asked and what it answers, with the limits of each."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from graphrec.serving.store import Click, Event, Fact, NewItem

MOST_ITEMS = 200  # in one list
MOST_HISTORY = 1000  # items of a stranger, or to leave out
MOST_ROWS = 1000  # events or new items in one request

# No control characters: they have no place in ids, and much mischief outside of them.
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def examples(*values: Any) -> ConfigDict:
    """Return a configuration with examples for the OpenAPI document."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": list(values)})


class Who(BaseModel):
    """A user of the data set or of the events, or a stranger's history; one of the two."""

    model: ModelName | None = Field(None, description="One of the served models; the first when not given.")
    user_id: Text | None = None
    history: Annotated[list[Text], Field(min_length=1, max_length=MOST_HISTORY)] | None = Field(
        None, description="Item ids or whole titles, oldest first."
    )

    @model_validator(mode="after")
    def one_of_two(self) -> Self:
        """Refuse neither and both."""
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give either user_id or history")
        return self


class RecommendRequest(Who):
    """A question for a list."""

    model_config = examples({"user_id": "42", "k": 10}, {"history": ["Toy Story", "Fargo"], "exclude": ["Alien"]})
    k: int = Field(10, ge=1, le=MOST_ITEMS, strict=True)
    exclude: list[Text] = Field(default_factory=list, max_length=MOST_HISTORY)


class ExplainRequest(Who):
    """A question why."""

    model_config = examples({"user_id": "42", "item": "Fargo"}, {"history": ["Toy Story"], "item": "Fargo"})
    item: Text
    k: int = Field(5, ge=1, le=20, strict=True, description="At most so many past items and paths.")


class SimilarRequest(BaseModel):
    """A question for an item's like."""

    model_config = examples({"item": "Toy Story", "k": 5})
    model: ModelName | None = None
    item: Text
    k: int = Field(10, ge=1, le=MOST_ITEMS, strict=True)


class HistoryRequest(BaseModel):
    """A question for a user's past."""

    model_config = examples({"user_id": "42", "limit": 20})
    model: ModelName | None = None
    user_id: Text
    limit: int = Field(20, ge=1, le=MOST_HISTORY, strict=True)


class EventIn(BaseModel):
    """Something that a user did with an item."""

    model_config = ConfigDict(extra="forbid")
    user_id: Text | None = Field(
        None,
        description="Somebody new when not given; the answer holds their id. A click has none: its list knows.",
    )
    item_id: Text
    kind: Literal["like", "dislike", "undo", "click"] = Field(
        "like", description="A click is on an item of a list; it counts in the report and changes no list."
    )
    list_id: Text | None = Field(None, description="Of a click: the list that the item was on.")
    dwell: float | None = Field(
        None, ge=0, le=1e6, allow_inf_nan=False, description="Of a click: seconds that the item held the user."
    )
    time: float | None = Field(None, ge=0, le=1e11, allow_inf_nan=False, description="Seconds since 1970; now if null.")
    event_id: Text | None = Field(
        None,
        description="Your own id, of this event alone among those of all users: one that is sent twice counts once, "
        "and a guest's gets the same user id again.",
    )

    @model_validator(mode="after")
    def click_or_not(self) -> Self:
        """Refuse clicks without a list, and what only clicks have."""
        if self.kind == "click":
            if self.list_id is None or self.user_id is not None:
                raise ValueError("a click has list_id, and no user_id")
        elif self.list_id is not None or self.dwell is not None:
            raise ValueError("list_id and dwell belong to clicks")
        return self

    def event(self, new_user: str) -> Event:
        """Return it as the store takes it."""
        when = time.time() if self.time is None else self.time
        return Event(self.user_id or new_user, self.item_id, self.kind, when, self.event_id)

    def click(self, place: int, team: str) -> Click:
        """Return it as the store takes a click on an item at a place of its list."""
        assert self.list_id is not None
        when = time.time() if self.time is None else self.time
        return Click(self.list_id, self.item_id, place, team, self.dwell, when, self.event_id)


class EventsRequest(BaseModel):
    """Events, kept in their order, all of them or none."""

    model_config = examples(
        {"events": [{"user_id": "42", "item_id": "50", "kind": "like", "event_id": "a-1"}]},
        {"events": [{"kind": "click", "list_id": "kX3v9QpL2sTqWz7a", "item_id": "50", "dwell": 41.5}]},
    )
    events: Annotated[list[EventIn], Field(min_length=1, max_length=MOST_ROWS)]


class FactIn(BaseModel):
    """A triple that links a new item to an entity of the knowledge graph."""

    model_config = ConfigDict(extra="forbid")
    relation: Text
    entity: Text
    item_is_head: bool = Field(True, strict=True, description="Or its tail.")


class ItemIn(BaseModel):
    """An item that joins without retraining."""

    model_config = ConfigDict(extra="forbid")
    item_id: Text
    title: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    facts: Annotated[list[FactIn], Field(min_length=1, max_length=MOST_ROWS)]

    def new_item(self) -> NewItem:
        """Return it as the store takes it."""
        facts = (Fact(fact.relation, fact.entity, fact.item_is_head) for fact in self.facts)
        return NewItem(self.item_id, self.title, tuple(dict.fromkeys(facts)))


class ItemsRequest(BaseModel):
    """Items that join, all of them or none."""

    model_config = examples(
        {
            "items": [
                {
                    "item_id": "new-1",
                    "title": "A film of this year",
                    "facts": [{"relation": "film.film.genre", "entity": "m.02kdv5l"}],
                }
            ]
        }
    )
    items: Annotated[list[ItemIn], Field(min_length=1, max_length=MOST_ROWS)]


class ReloadRequest(BaseModel):
    """A run that takes the place of a served model."""

    model_config = examples({"run": "2026-11-28-nightly"})
    model: ModelName | None = None
    run: ModelName = Field(description="Name of a run folder beside the one that is served.")


class ListedItem(BaseModel):
    """A place in a list."""

    rank: int
    item_id: str
    title: str
    score: float = Field(description="Of the model that placed it; no measure across two models.")


class RecommendResponse(BaseModel):
    """A list."""

    model: str
    items: list[ListedItem]
    num_past: int = Field(description="Items of the past that the answer rests on.")
    novelty: float = Field(description="Mean of -log2 of the items' popularity share, in bits.")
    list_id: str | None = Field(description="What clicks on it name, where the service keeps lists for its report.")


class SimilarResponse(BaseModel):
    """Similar items."""

    model: str
    items: list[ListedItem]


class PastItemOut(BaseModel):
    """A past item and its part in a score."""

    item_id: str
    title: str
    contribution: float
    share: float


class PathOut(BaseModel):
    """A path through the knowledge graph; the fields are those of graphrec.serving.paths.Path, and its sentence."""

    past_title: str
    more_past: int
    past_relation: str
    entity_id: str
    entity: str
    known_from: list[str]
    relation: str
    attention: float
    specificity: float
    direct: bool = Field(description="Whether the past item itself is linked to the recommended one.")
    effect: float | None = Field(default=None, description="How far the score falls without it; null where not asked.")
    sentence: str = Field(description="It in words.")


class ExplainResponse(BaseModel):
    """Why; further members may follow those named here."""

    model_config = ConfigDict(extra="allow")
    model: str
    item_id: str
    title: str
    score: float
    base: float
    past: list[PastItemOut]
    paths: list[PathOut]
    how: str = Field(description="What the shares are, in words.")
    sentences: list[str]


class Title(BaseModel):
    """An item by id and title."""

    item_id: str
    title: str


class TitlesResponse(BaseModel):
    """Items."""

    items: list[Title]


class HistoryResponse(BaseModel):
    """A user's past, newest last."""

    num_past: int
    items: list[Title]
    liked: list[str] = Field(description="Ids of items that the user has liked since training.")
    disliked: list[Title]


class UsersResponse(BaseModel):
    """Users."""

    users: list[str]


class EventsResponse(BaseModel):
    """What was kept: it is durable, and the next list heeds it."""

    new: int = Field(description="Events that had not been sent before.")
    user_id: str | None = Field(None, description="The id of somebody new, for events that named no user.")


class ItemsResponse(BaseModel):
    """What joined: it is durable, and the next list may hold it."""

    new: int


class ModelOut(BaseModel):
    """A served model."""

    name: str
    run: str
    kind: str
    data: str
    num_users: int
    num_items: int
    num_joined: int = Field(description="Items that joined since training.")
    left_out: int = Field(description="Joined items that this model cannot rank.")
    takes_strangers: bool
    takes_items: bool
    lists: int = Field(description="Lists made since the start.")
    coverage: float = Field(description="Share of all items that were in one of these lists.")
    novelty: float = Field(description="Mean novelty of these lists, in bits.")


class HealthResponse(BaseModel):
    """Ready, and with what."""

    status: Literal["ok"]
    version: str
    read_only: bool
    keys: bool = Field(description="Whether requests need an API key.")
    records: bool = Field(description="Whether lists that name no model are kept for the report.")
    interleaves: bool = Field(description="Whether such lists are made by the first two models together.")
    models: list[ModelOut]


class RateOut(BaseModel):
    """A share with its 95 % interval."""

    mean: float
    low: float
    high: float


class ClickThroughOut(BaseModel):
    """What became of a model's lists; the fields are those of graphrec.serving.online.ClickThrough."""

    model: str
    lists: int
    users: int
    clicked: int
    rate: RateOut
    clicks: int
    dwell: float | None
    num_dwell: int


class PreferenceOut(BaseModel):
    """Which of two models users prefer; the fields are those of graphrec.serving.online.Preference."""

    first: str
    second: str
    lists: int
    first_wins: int
    second_wins: int
    ties: int
    delta: float
    first_users: int
    second_users: int
    p_value: float


class ReportResponse(BaseModel):
    """What users did with the lists they were shown."""

    click_through: list[ClickThroughOut]
    preferences: list[PreferenceOut]
    days: float | None


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
