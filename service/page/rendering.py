"""Templates to answers: the environment, what it says of times and sizes, and the headers of pages."""

from __future__ import annotations

import hashlib
import math
import re
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from service.page.sessions import Visit

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "Cache-Control": "private, no-cache",
}
AGE = re.compile('(<time datetime="([^"]+)"[^>]*>)([^<]*)')  # as `moment` writes it
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def render(request: Request, template: str, visit: Visit | None, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one, as an answer."""
    text = to_html(template, visit, path=request.url.path, **values)
    return HTMLResponse(text, status, HEADERS)


def to_html(template: str, visit: Visit | None, **values: Any) -> str:
    return _environment().get_template(template).render(visit=visit, csrf=visit.csrf if visit else "", **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"static": static_url}
    environment.filters |= {"moment": moment, "size": size, "duration": duration, "figure": figure, "part": part}
    return environment


@cache
def static_url(name: str) -> str:
    """With what it holds in its address, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{quote(name)}?v={digest}"


def moment(seconds: float | None) -> Markup:
    """How long ago, with the time itself for machines and for who points at it."""
    if seconds is None:
        return Markup("–")
    when = datetime.fromtimestamp(seconds, timezone.utc)
    exact = when.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(when.isoformat(timespec="seconds"), exact, _ago(seconds))


def without_ages(html: str) -> tuple[str, dict[str, str]]:
    """What stays as time goes by, and how long ago each moment in it is, by its `datetime`."""
    return AGE.sub(r"\1", html), {found[2]: found[3] for found in AGE.finditer(html)}


def _ago(seconds: float) -> str:
    passed = time.time() - seconds
    if passed < -MINUTE:
        return f"in {duration(-passed)}"
    return "just now" if passed < MINUTE else f"{duration(passed)} ago"


def duration(seconds: float | None) -> str:
    """Two units at most: 1 h 05 min, 3 min 20 s, 12 s."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    seconds = max(0.0, seconds)
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:.0f} days"
    if seconds >= HOUR:
        return f"{seconds // HOUR:.0f} h {seconds % HOUR // MINUTE:02.0f} min"
    if seconds >= 10 * MINUTE:
        return f"{seconds // MINUTE:.0f} min"
    if seconds >= MINUTE:
        return f"{seconds // MINUTE:.0f} min {seconds % MINUTE // 1:02.0f} s"
    return f"{seconds:.0f} s"


def size(count: int | float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "–"
    unit = min(int(math.log(count, 1024)), len(UNITS) - 1) if count >= 1 else 0
    return f"{count / 1024**unit:.{1 if unit else 0}f} {UNITS[unit]}"


def figure(value: object) -> str:
    """A number with as many digits as say something."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def part(text: object) -> Markup:
    """As part of an address."""
    return escape(quote(str(text), safe=""))
