"""What a request's headers say of its trace: W3C Trace Context, and B3 in one header or in several. Pure.

What is malformed says nothing: the request begins a trace of its own.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

Field = Callable[[str], str | None]
"""Returns a header's value by its name; None: it is not there."""

NAMES = ("traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags")
"""All that are ever asked for."""


class Parent(NamedTuple):
    """The span that a request belongs to: its caller's."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """64 bits, not 0."""
    sampled: bool


_W3C = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_B3 = re.compile(r"([0-9a-fA-F]{32}|[0-9a-fA-F]{16})-([0-9a-fA-F]{16})(?:-([01d])(?:-[0-9a-fA-F]{16})?)?")


def parent(field: Field) -> Parent | None:
    """Return what a request belongs to; None: it belongs to nothing.

    B3 goes before W3C's, as in the reference implementation. Where it leaves open whether its trace is sampled, it is not.
    """
    return _b3(field) or _w3c(field("traceparent") or "")


def _w3c(text: str) -> Parent | None:
    match = _W3C.fullmatch(text)
    return _parent(match[1], match[2], sampled=bool(int(match[3], 16) & 1)) if match else None


def _b3(field: Field) -> Parent | None:
    text = field("b3")
    if text is None and (trace_id := field("x-b3-traceid")) is not None:
        text = f"{trace_id}-{field('x-b3-spanid')}-{_sampling(field)}"
    match = _B3.fullmatch(text or "")
    return _parent(match[1], match[2], sampled=match[3] in ("1", "d")) if match else None


def _sampling(field: Field) -> str:
    """Return what B3's several headers say of sampling, as its single header has it: 1, 0, or d (debug: sampled, too)."""
    if field("x-b3-flags") == "1":
        return "d"
    said = field("x-b3-sampled") or "0"
    return {"true": "1", "false": "0"}.get(said, said)


def _parent(trace_id: str, span_id: str, *, sampled: bool) -> Parent | None:
    found = Parent(int(trace_id, 16), int(span_id, 16), sampled)
    return found if found.trace_id and found.span_id else None
