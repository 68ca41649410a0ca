"""Pages of lists as Replicate's API has them."""

from __future__ import annotations

from typing import Any

from service.jobs.pages import Page
from service.services import Services

PAGE_ROWS = 100


def page_view(services: Services, path: str, page: Page[Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Its links are of the public address: clients follow them with their key, wherever they lead."""

    def link(cursor: str | None) -> str | None:
        return f"{services.settings.url}/{path}?cursor={cursor}" if cursor else None

    return {"previous": link(page.previous), "next": link(page.next), "results": rows}
