"""HTML that can't be broken out of: every value is escaped unless it is Html already. Pure."""

from html import escape


class Html(str):
    """Text that is HTML and safe to place as it is."""

    __slots__ = ()


EMPTY = Html("")


def tag(name: str, *children: str, **attributes: str | int | float | bool | None) -> Html:
    """An element.

    ``class_`` becomes ``class`` and ``aria_label`` ``aria-label``; an attribute that is None or False is left out and one
    that is True has no value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None and value is not False)
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: "tuple[str, ...] | list[str]") -> Html:
    """Parts one after the other, escaped where they are plain text."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


_VOID = frozenset({"img", "input", "br", "hr", "meta", "link"})


def _attribute(key: str, value: str | int | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
