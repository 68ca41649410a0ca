"""Reads pages as a browser and a screen reader would: forms, labels, what is inline."""
from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "path", "circle"}
UNLABELLED = {"hidden", "submit", "button"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    own_text: list[str] = field(default_factory=list)

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()

    def get(self, name: str, default: str = "") -> str:
        return self.attributes.get(name) or default

    @property
    def text(self) -> str:
        return "".join([*self.own_text, *(child.text for child in self.children)])


class Page(HTMLParser):
    """A parsed page. Raises AssertionError where an element is not closed."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = self.root
        self.feed(html)
        self.close()
        assert self._open is self.root, f"<{self._open.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self._open)
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self._open.children.append(element)
        if tag not in VOID:
            self._open = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.children.append(Element(tag, dict(attrs), self._open))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data: str) -> None:
        self._open.own_text.append(data)

    def all(self, *tags: str, **attributes: str) -> list[Element]:
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [
            found for found in self.root.walk()
            if found.tag in tags and all(found.get(name) == value for name, value in wanted.items())
        ]  # fmt: skip

    def by_id(self, name: str) -> Element:
        [found] = [one for one in self.root.walk() if one.get("id") == name]
        return found

    def csrf(self) -> str:
        return next(one.get("value") for one in self.all("input", name="csrf"))


def mistakes_in(page: Page) -> list[str]:
    """What does not hold under CSP 'self', for forms, or for who cannot see."""
    found = []
    ids = [one.get("id") for one in page.root.walk() if one.get("id")]
    found += [f"id {name} is there twice" for name in {one for one in ids if ids.count(one) > 1}]
    labelled = {one.get("for") for one in page.all("label")}
    for one in page.root.walk():
        where = f"<{one.tag} {one.attributes}>"
        found += [f"{where}: inline script" for name in one.attributes if name.startswith("on")]
        if "style" in one.attributes:
            found.append(f"{where}: inline style")
        if one.tag == "style" or (one.tag == "script" and (not one.get("src").startswith("/static/") or one.text.strip())):
            found.append(f"{where}: inline {one.tag}")
        if one.tag in ("input", "select", "textarea") and one.get("type") not in UNLABELLED:
            inside = any(parent.tag == "label" for parent in _parents(one))
            if one.get("id") not in labelled and not inside:
                found.append(f"{where}: no label")
        if one.tag == "form" and one.get("method") == "post":
            names = [child.get("name") for child in one.walk() if child.get("type") == "hidden"]
            if names.count("csrf") != 1:
                found.append(f"{where}: no csrf token")
        if one.tag == "img" and "alt" not in one.attributes:
            found.append(f"{where}: no alt")
        if one.tag in ("button", "a") and not (one.text.strip() or one.get("aria-label") or any(c.tag == "img" for c in one.walk())):
            found.append(f"{where}: no name")
        for name in one.get("aria-describedby").split() + one.get("aria-labelledby").split():
            if name not in ids:
                found.append(f"{where}: refers to {name}, which is not there")
        for name in ("src", "action", "formaction", "hx-get", "hx-post", "sse-connect"):
            if one.get(name) and not one.get(name).startswith("/"):
                found.append(f"{where}: leads to another host")
    if len(page.all("h1")) != 1 or len(page.all("main")) != 1:
        found.append("a page has one h1 and one main")
    return found


def _parents(one: Element):
    while one.parent is not None:
        one = one.parent
        yield one
