"""Group commit: while a batch is with the store, whatever arrives forms the next one.

At idle a batch leaves in the loop's next turn, with all that one read of a socket brought; so there is no timer, and hardly
any added latency. A batch has one future, a request has none.

What is owed on a batch's windows goes before its lines. Lines that are compared bring others along (`comparison`).

Rules: a take is never repeated; each line of a batch is settled, once, whatever the store does.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from time import perf_counter_ns

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.limiter.comparison import ComparedBatch, Comparison
from ratelimit_svc.limiter.owed import Debt, Owed
from ratelimit_svc.limiter.waiting import WaitingLine, WaitingLines
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store import MAX_CHARGES, MAX_LINES, Store, Untaken

_IS_COMPARED = attrgetter("plan.compared")


class GroupCommit:
    """Brings the lines that wait to the store.

    Args:
        store: takes them.
        waiting: has them.
        owed: has what the store has yet to be told.
        clock: the time in µs, that of the windows in memory: when a batch was sent is written on its lines.
        most: how many batches may be with the store at a time.
        settle: told of each line what the store says.
        metrics: counts batches, lines and the store's latency.
        comparison: is told of lines that are compared, once their requests are answered.

    Resource handling: belongs to the running event loop; `close` forgets what is with the store.
    """

    def __init__(
        self,
        store: Store,
        waiting: WaitingLines,
        owed: Owed,
        clock: Callable[[], int],
        *,
        most: int,
        settle: Callable[[WaitingLine, Grant | Untaken], None],
        metrics: Metrics,
        comparison: Comparison,
    ) -> None:
        self._store, self._waiting, self._owed = store, waiting, owed
        self._most, self._clock = most, clock
        self._settle = settle
        self._metrics, self._comparison = metrics, comparison
        self._loop = asyncio.get_running_loop()
        self._taking: set[asyncio.Future[list[Grant | Untaken]]] = set()
        """The batches that are with the store."""
        self._next_send: asyncio.Handle | None = None

    @property
    def idle(self) -> bool:
        """Whether no batch is with the store, nor about to go there."""
        return not self._taking and self._next_send is None

    def wake(self) -> None:
        """Note that a request waits."""
        if self._next_send is None and len(self._taking) < self._most:
            self._next_send = self._loop.call_soon(self._send)

    def close(self) -> None:
        """Forget all."""
        if self._next_send is not None:
            self._next_send.cancel()
        taking, self._taking = self._taking, set()
        for taken in taking:
            taken.cancel()

    def _send(self) -> None:
        """Hand batches to the store, as many as may be with it."""
        self._next_send = None
        most_charges = MAX_CHARGES // 2 if self._owed else MAX_CHARGES
        while len(self._taking) < self._most and (batch := self._waiting.next_batch(most_charges)):
            compared = ComparedBatch(batch) if any(map(_IS_COMPARED, batch)) else None
            lines = compared.lines() if compared else [Line(line.plan.charges, len(line.requests)) for line in batch]
            self._stamp(batch)
            debts: list[Debt] = []
            if self._owed:
                charges = sum([len(line.charges) for line in lines])
                debts = self._owed.take_out(lines, min(MAX_CHARGES - charges, MAX_LINES - len(lines)))
                lines = [*(debt.line() for debt in debts), *lines]
            self._metrics.batches += 1
            self._metrics.lines += len(lines)
            taken = self._take(lines, max([line.due for line in batch]))
            self._taking.add(taken)
            taken.add_done_callback(partial(self._on_taken, debts, batch, compared, perf_counter_ns()))

    def _stamp(self, batch: Sequence[WaitingLine]) -> None:
        now = self._clock()
        for line in batch:
            line.sent_us = now

    def _take(self, lines: Sequence[Line], due: float) -> asyncio.Future[list[Grant | Untaken]]:
        try:
            return asyncio.ensure_future(self._store.take(lines, due))
        except Exception as error:  # noqa: BLE001 — of a store that does not even begin
            taken: asyncio.Future[list[Grant | Untaken]] = self._loop.create_future()
            taken.set_exception(error)
            return taken

    def _on_taken(
        self,
        debts: Sequence[Debt],
        batch: Sequence[WaitingLine],
        compared: ComparedBatch | None,
        started_ns: int,
        taken: asyncio.Future[list[Grant | Untaken]],
    ) -> None:
        """Tell how a batch went. The next one is sent before: the store need not wait for answers to be written."""
        if taken not in self._taking:  # closed
            return
        self._taking.discard(taken)
        self._send()
        error = _error(taken)
        if error is None:
            said: Sequence[Grant | Untaken] = taken.result()
        else:
            away = error if isinstance(error, StoreUnavailableError) else self._report(error)
            said = [Untaken(away)] * (len(debts) + len(batch))
            compared = None
        if not isinstance(said[-1], Untaken):
            self._metrics.store_latency.observe((perf_counter_ns() - started_ns) // 1000)
        if debts:
            for debt, grant in zip(debts, said, strict=False):
                self._owed.settle(debt, grant)
            said = said[len(debts) :]
        self._settle_all(batch, compared.deciding(said) if compared else said)
        if compared:
            self._comparison.note(compared.pairs(said))

    def _settle_all(self, batch: Sequence[WaitingLine], said: Sequence[Grant | Untaken]) -> None:
        for line, grant in zip(batch, said, strict=True):
            try:
                self._settle(line, grant)
            except Exception as error:  # noqa: BLE001 — a defect: nobody shall wait for it in vain
                self._settle(line, Untaken(self._report(error)))
            line.requests.clear()  # they know their line: else they go round in a circle

    def _report(self, error: BaseException) -> StoreUnavailableError:
        """Let the loop's handler log a defect of ours, and return what is said to those whom it left unanswered."""
        self._loop.call_exception_handler({"message": "a batch could not be answered", "exception": error})
        return StoreUnavailableError("internal error")


def _error(taken: asyncio.Future[list[Grant | Untaken]]) -> BaseException | None:
    """Return why a batch was not taken; None: it was.

    Not by `result`: what that raises holds the frame that holds the future that holds it, and with them the whole batch, until
    the collector comes.
    """
    return StoreUnavailableError("the store has given up the call") if taken.cancelled() else taken.exception()
