"""A user who is never at rest."""

from __future__ import annotations

from graphrec.serving.live_users import Change


class BusyChanges(dict[str, Change]):
    """Changes of users who like one item more between any two readings, as a store's thread may take it."""

    def get(self, user_id: str, default: Change | None = None) -> Change:  # type: ignore[override]
        change = super().get(user_id, default or Change())
        self[user_id] = change.after(len(change.liked), "like")
        return change
