"""Spread: the store whose windows are in several places. It is `spanning`'s rim: it sends, waits, and sends undos.

Lines whose windows are all in one place go there as they are: one call for each place, and all calls in one go. Those that span
places go in parts, with the same calls.

Rules:
1. A line is told when all its parts are answered. What has to be undone is sent in that moment, once, and nobody waits for it.
   If that gets lost (the place is away, or does not answer), its hits stay charged until the window forgets them.
2. A part whose outcome is not known is undone when it turns out to have been charged, if the time of its charge is known then.
3. From the moment when parts are sent until their undo is answered, who is denied on their keys is told so (`Grant.passing`).
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, Self

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.model import Charge, Grant, Line, Role
from ratelimit_svc.store import Untaken
from ratelimit_svc.store.redis.calls import Call, Refused, Unknown, charged, in_words
from ratelimit_svc.store.redis.commands import Taken
from ratelimit_svc.store.redis.node import Node
from ratelimit_svc.store.redis.spanning import Part, Told, combine, refunded, split, undo_all


class Several(NamedTuple):
    """What was answered to the lines of a call that were taken one by one, since their place was on its way."""

    calls: "list[Answer]"


Answer = Call | Several

Asking = asyncio.Future[list[Call]] | asyncio.Future[list[Answer]]


class Places(Protocol):
    """Where windows are: the slots of a Cluster, or one server for short windows and another for the rest."""

    @property
    def up(self) -> bool:
        """Whether any of them answers."""
        ...

    def away(self) -> list[str]:
        """Return what does not answer and why, in words for people; empty if all do."""
        ...

    def nodes(self) -> Mapping[str, Node]:
        """Return the servers by their addresses."""
        ...

    async def __aenter__(self) -> object:
        """Connect. What is away then is no error."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        ...

    async def command(self, key: bytes, *words: bytes) -> object:
        """Write any other command to where a key is, and return its reply; see `Node.command`."""
        ...

    def place(self, charge: Charge) -> int:
        """Return where a charge's window is. Charges of one key are in one place."""
        ...

    def ask(self, calls: Mapping[int, Sequence[Line]], due: float | None) -> Asking:
        """Take some lines in each place; the future has what was answered, in the order of the calls, and does not fail."""
        ...


class _Spanning(NamedTuple):
    """A line that is asked for in parts."""

    number: int
    """Its place in the batch."""
    line: Line
    parts: list[Part]
    first: int
    """The number of its first part; the others follow. Parts are numbered on from the batch's lines."""


class _Batch(NamedTuple):
    """A batch that is asked for."""

    lines: Sequence[Line]
    taken: asyncio.Future[list[Grant | Untaken]]
    calls: dict[int, list[Line]]
    numbers: dict[int, list[int]]
    """For each call, which lines and parts it has."""
    spanning: list[_Spanning]
    told: list[Grant | Untaken]
    """What was answered: to the batch's lines, then to parts of lines."""
    times: dict[int, int]
    """By the number of a part: when it was charged, by its place's clock in µs."""
    unknown: "dict[int, tuple[asyncio.Future[Taken | None], int]]"
    """By the number of a part of which it is not known yet what it did: what will tell of its call, and which line it is there."""


_NOT_TOLD = Untaken(StoreUnavailableError("nothing was answered"))


class SpreadStore:
    """Windows in several places.

    Args:
        places: where they are.

    Resource handling: `async with` opens the places, and closes them in the end.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._loop = asyncio.get_running_loop()
        self._open: Counter[bytes] = Counter()
        """Keys that have charges which may have to be undone, and how many."""
        self.undos = 0
        """Undos that were sent: each of one line in one place."""
        self.undos_lost = 0
        """Those without an answer, or that could not be sent: their hits stay charged until the windows forget them."""

    def __repr__(self) -> str:
        return f"<SpreadStore: {len(self._open)} keys with open undos, {self._places!r}>"

    @property
    def up(self) -> bool:
        """Whether any place answers."""
        return self._places.up

    def away(self) -> list[str]:
        """Return what does not answer and why, in words for people; empty if all do."""
        return self._places.away()

    def nodes(self) -> Mapping[str, Node]:
        """Return the servers by their addresses."""
        return self._places.nodes()

    async def command(self, key: bytes, *words: bytes) -> object:
        """Write any other command to where a key is, and return its reply; see `Node.command`."""
        return await self._places.command(key, *words)

    def describe(self) -> Mapping[str, object]:
        """Return what health detail shows of the servers, by their addresses."""
        return {address: node.describe() for address, node in self.nodes().items()}

    async def __aenter__(self) -> Self:
        await self._places.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._places.__aexit__(None, None, None)

    def take(self, lines: Sequence[Line], due: float | None = None) -> asyncio.Future[list[Grant | Untaken]]:
        """Charge a batch; see `Store.take`."""
        batch = self._batch(lines)
        for spanning in batch.spanning:
            self._open.update(_keys(spanning.parts))
        asked = self._places.ask(batch.calls, due)
        asked.add_done_callback(partial(self._on_answers, batch, due))
        return batch.taken

    def _batch(self, lines: Sequence[Line]) -> _Batch:
        """Put the lines to their places; those that span several in parts."""
        place_of = self._places.place
        calls: dict[int, list[Line]] = {}
        numbers: dict[int, list[int]] = {}
        spanning: list[_Spanning] = []
        many = len(lines)
        for number, line in enumerate(lines):
            charges = line.charges
            place = place_of(charges[0])
            if len(charges) > 1 and any(place_of(charge) != place for charge in charges):
                parts = split(line, [place_of(charge) for charge in charges])
                spanning.append(_Spanning(number, line, parts, many))
                for part in parts:
                    calls.setdefault(part.place, []).append(part.line)
                    numbers.setdefault(part.place, []).append(many)
                    many += 1
            elif place in calls:
                calls[place].append(line)
                numbers[place].append(number)
            else:
                calls[place], numbers[place] = [line], [number]
        return _Batch(lines, self._loop.create_future(), calls, numbers, spanning, [_NOT_TOLD] * many, {}, {})

    def _on_answers(self, batch: _Batch, due: float | None, asked: Asking) -> None:
        """Note what was answered, put lines together, and tell, when no refund is left to be given."""
        for numbers, call in zip(batch.numbers.values(), asked.result(), strict=True):
            _note(batch, numbers, call)
        undo: list[Part] = []
        refund: list[tuple[int, Part]] = []
        for spanning in batch.spanning:
            self._shut(spanning.parts)
            undo += self._put_together(batch, spanning, refund)
        if undo:
            self._undo(undo)
        if self._open:
            self._note_passing(batch)
        if refund:
            self._refund(batch, refund, due)
        else:
            _tell(batch)

    def _put_together(self, batch: _Batch, spanning: _Spanning, refund: list[tuple[int, Part]]) -> list[Part]:
        """Put one line together; add what it refunds, and return what has to be undone."""
        number, line, parts, first = spanning
        told = batch.told[first : first + len(parts)]
        answers = [
            Told(batch.times[at], answer) if isinstance(answer, Grant) else None
            for at, answer in enumerate(told, first)
        ]
        sound = [answer for answer in answers if answer is not None]
        if len(sound) == len(parts):
            whole = combine(line, parts, sound)
            batch.told[number] = whole.grant
            refund += [(number, part) for part in whole.refund]
            return whole.undo
        failed = [answer for answer in told if isinstance(answer, Untaken)]
        batch.told[number] = Untaken(failed[0].error, late=all(answer.late for answer in failed))
        for at, part in enumerate(parts, first):
            if at in batch.unknown:
                self._undo_if_charged(part, *batch.unknown[at])
        return undo_all(parts, answers)

    def _undo_if_charged(self, part: Part, outcome: "asyncio.Future[Taken | None]", at: int) -> None:
        """Undo a part when it turns out that it was charged."""
        self._open.update(_keys([part]))

        def on_outcome(_: object) -> None:
            self._shut([part])
            call = None if outcome.cancelled() else outcome.result()
            if call is not None and call.grants is not None:
                undo = undo_all([part], [Told(call.now, call.grants[at])])
                if undo and call.now:
                    self._undo(undo)
                else:  # a receipt tells no time
                    self.undos_lost += len(undo)

        outcome.add_done_callback(on_outcome)

    # ── undos and refunds ─────────────────────────────────────────────────────────────────────────────────────────────

    def _undo(self, undo: Sequence[Part]) -> None:
        """Send undos: once, all together, and nobody waits for them."""
        self.undos += len(undo)
        calls: dict[int, list[Line]] = {}
        for part in undo:
            calls.setdefault(part.place, []).append(part.line)
        self._open.update(_keys(undo))
        self._places.ask(calls, None).add_done_callback(partial(self._on_undone, undo))

    def _on_undone(self, undo: Sequence[Part], asked: Asking) -> None:
        self._shut(undo)
        answered = [grant for call in asked.result() for grant in _grants(call) if grant is not None]
        self.undos_lost += len(undo) - len(answered)

    def _shut(self, parts: Sequence[Part]) -> None:
        """Note that charges are settled, or undone."""
        for key in _keys(parts):
            left = self._open[key] - 1
            if left:
                self._open[key] = left
            else:
                del self._open[key]

    def _note_passing(self, batch: _Batch) -> None:
        """Mark denials that may be due to hits that are about to be undone."""
        for number, line in enumerate(batch.lines):
            grant = batch.told[number]
            if isinstance(grant, Grant) and grant.granted < line.n and self._is_passing(line, grant):
                batch.told[number] = grant._replace(passing=True)

    def _is_passing(self, line: Line, grant: Grant) -> bool:
        return any(
            outcome.fits_in_us > 0 and charge.role is not Role.SHADOW and charge.key in self._open
            for charge, outcome in zip(line.charges, grant.outcomes, strict=False)  # a bad key has no outcomes
        )

    def _refund(self, batch: _Batch, refund: Sequence[tuple[int, Part]], due: float | None) -> None:
        """Give back what granted lines give back, and tell then."""
        calls: dict[int, list[Line]] = {}
        numbers: dict[int, list[tuple[int, Part]]] = {}
        for number, part in refund:
            calls.setdefault(part.place, []).append(part.line)
            numbers.setdefault(part.place, []).append((number, part))
        asked = self._places.ask(calls, due)
        asked.add_done_callback(partial(_on_refunded, batch, list(numbers.values())))


def _on_refunded(batch: _Batch, refunds: Sequence[Sequence[tuple[int, Part]]], asked: Asking) -> None:
    """Tell how windows stand after refunds. One that got lost is told as if it were still to come."""
    for several, call in zip(refunds, asked.result(), strict=True):
        for (number, part), refund in zip(several, _grants(call), strict=False):
            grant = batch.told[number]
            if isinstance(grant, Grant) and refund is not None and refund.granted > 0:
                batch.told[number] = refunded(grant, part, refund.outcomes)
    _tell(batch)


def _grants(call: Answer) -> list[Grant | None]:
    """Return what the lines of a call were granted; None: it is not known. Empty if none is."""
    if isinstance(call, Several):
        return [next(iter(_grants(each)), None) for each in call.calls]
    return [*call.grants] if isinstance(call, Taken) and call.grants is not None else []


def _note(batch: _Batch, numbers: Sequence[int], call: Answer) -> None:
    """Note the answer to one call."""
    told: Sequence[Grant | Untaken]
    if isinstance(call, Taken) and call.grants is not None:
        if batch.spanning:
            batch.times.update(dict.fromkeys(numbers, call.now))
        told = call.grants
    elif isinstance(call, Several):
        for number, one in zip(numbers, call.calls, strict=True):
            _note(batch, [number], one)
        return
    elif isinstance(call, Unknown) and call.outcome is not None:
        told = [Untaken(call.error, charged(call.outcome, at)) for at in range(len(numbers))]
        parts = [(number, at) for at, number in enumerate(numbers) if number >= len(batch.lines)]
        batch.unknown.update({number: (call.outcome, at) for number, at in parts})
    else:
        told = [_untaken(call)] * len(numbers)
    for number, line_told in zip(numbers, told, strict=True):
        batch.told[number] = line_told


def _untaken(call: Call) -> Untaken:
    """Return what lines are told that were certainly not charged."""
    if isinstance(call, Taken):
        return Untaken(StoreUnavailableError("the store got it too late"), late=True)
    if isinstance(call, Refused):
        return Untaken(StoreUnavailableError(in_words(call.said)))
    return Untaken(call.error)


def _tell(batch: _Batch) -> None:
    """Answer the batch."""
    if not batch.taken.done():  # nobody wants it any more
        batch.taken.set_result(batch.told[: len(batch.lines)])


def _keys(parts: Iterable[Part]) -> list[bytes]:
    """Return the keys that parts may charge."""
    return [charge.key for part in parts for charge in part.line.charges if charge.hits]
