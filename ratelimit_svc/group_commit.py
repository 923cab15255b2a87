"""Group commit: while a batch is with the store, whatever arrives forms the next one.

At idle a batch leaves in the loop's next turn, with all that one read of a socket brought; so there is no timer, and hardly
any added latency. A batch has one future, a request has none.

Rules: a take is never repeated; each line of a batch is settled or failed, once, whatever the store does.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns

from ratelimit_svc.errors import StoreUnavailableError
from ratelimit_svc.metrics import Metrics
from ratelimit_svc.model import Grant, Line
from ratelimit_svc.store import Store
from ratelimit_svc.waiting import WaitingLine, WaitingLines


class GroupCommit:
    """Brings the lines that wait to the store.

    Args:
        store: takes them.
        waiting: has them.
        most: how many batches may be with the store at a time.
        settle: told of each line that was taken.
        fail: told of each line that was not, or not for sure.
        metrics: counts batches, lines and the store's latency.

    Resource handling: belongs to the running event loop; `close` forgets what is with the store.
    """

    def __init__(
        self,
        store: Store,
        waiting: WaitingLines,
        *,
        most: int,
        settle: Callable[[WaitingLine, Grant], None],
        fail: Callable[[WaitingLine, StoreUnavailableError], None],
        metrics: Metrics,
    ) -> None:
        self._store, self._waiting = store, waiting
        self._most = most
        self._settle, self._fail = settle, fail
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._taking: set[asyncio.Future[list[Grant]]] = set()
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
        while len(self._taking) < self._most and (batch := self._waiting.next_batch()):
            self._metrics.batches += 1
            self._metrics.lines += len(batch)
            taken = self._take(batch)
            self._taking.add(taken)
            taken.add_done_callback(partial(self._on_taken, batch, perf_counter_ns()))

    def _take(self, batch: Sequence[WaitingLine]) -> asyncio.Future[list[Grant]]:
        lines = [Line(line.plan.charges, len(line.requests)) for line in batch]
        try:
            return asyncio.ensure_future(self._store.take(lines))
        except Exception as error:  # noqa: BLE001 — of a store that does not even begin
            taken: asyncio.Future[list[Grant]] = self._loop.create_future()
            taken.set_exception(error)
            return taken

    def _on_taken(self, batch: Sequence[WaitingLine], started_ns: int, taken: asyncio.Future[list[Grant]]) -> None:
        """Tell how a batch went. The next one is sent before: the store need not wait for answers to be written."""
        if taken not in self._taking:  # closed
            return
        self._taking.discard(taken)
        self._send()
        error = _error(taken)
        if error is None:
            self._metrics.store_latency.observe((perf_counter_ns() - started_ns) // 1000)
            self._settle_all(batch, taken.result())
        elif isinstance(error, StoreUnavailableError):
            self._fail_all(batch, error)
        else:  # a defect: nobody shall wait for it in vain
            self._report(error, batch)

    def _settle_all(self, batch: Sequence[WaitingLine], grants: Sequence[Grant]) -> None:
        for line, grant in zip(batch, grants, strict=True):
            try:
                self._settle(line, grant)
            except Exception as error:  # noqa: BLE001 — a defect, as above
                self._report(error, [line])

    def _fail_all(self, lines: Sequence[WaitingLine], error: StoreUnavailableError) -> None:
        for line in lines:
            self._fail(line, error)

    def _report(self, error: BaseException, lines: Sequence[WaitingLine]) -> None:
        """Fail lines that a defect of ours left unanswered, and let the loop's handler log it."""
        self._loop.call_exception_handler({"message": "a batch could not be answered", "exception": error})
        self._fail_all(lines, StoreUnavailableError("internal error"))


def _error(taken: asyncio.Future[list[Grant]]) -> BaseException | None:
    """Return why a batch was not taken; None: it was.

    Not by `result`: what that raises holds the frame that holds the future that holds it, and with them the whole batch, until
    the collector comes.
    """
    return StoreUnavailableError("the store has given up the call") if taken.cancelled() else taken.exception()
