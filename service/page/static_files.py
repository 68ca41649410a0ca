"""Scripts, styles and pictures of the page: the files in static/, and no other."""

from __future__ import annotations

from fastapi.responses import FileResponse

from service.page.rendering import STATIC
from service.page.routing import page_router
from service.problems import not_found

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
NAMES = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.suffix in KINDS}
FOR_EVER = "public, max-age=31536000, immutable"  # their addresses change with what they hold

router = page_router()


@router.get("/static/{name:path}")
def static_file(name: str) -> FileResponse:
    path = NAMES.get(name)
    if path is None:
        raise not_found("file of this name")
    return FileResponse(path, media_type=KINDS[path.suffix], headers={"Cache-Control": FOR_EVER})
