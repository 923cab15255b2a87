"""A call that has a task of its own: health, reflection, whatever streams. RateLimitService calls never come here."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from ratelimit_svc.wire.calls import CallError, GrpcStatus, Method
from ratelimit_svc.wire.http2.messages import PREFIX_BYTES, Unfinished
from ratelimit_svc.wire.http2.outgoing import Outgoing
from ratelimit_svc.wire.http2.requests import Requests
from ratelimit_svc.wire.http2.streams import Stream

MOST_UNREAD, MOST_UNSENT = 64 * 1024, 64 * 1024
"""Bytes of messages that a method has not read, and of answers that its caller has not: beyond, the one that makes them waits."""


class Call:
    """One call of a method.

    Args:
        method: called in a task of its own, at once.
        stream: the call's.
        requests: told when the method has read.
        outgoing: told what it answers.
        unfinished: counts what the method has not read.
        flush: called whenever there is something to send.
    """

    def __init__(
        self,
        method: Method,
        stream: Stream,
        *,
        requests: Requests,
        outgoing: Outgoing,
        unfinished: Unfinished,
        flush: Callable[[], None],
    ) -> None:
        self._stream, self._requests, self._outgoing, self._flush = stream, requests, outgoing, flush
        self._unfinished = unfinished
        self._messages: deque[bytes] = deque()
        self._unread = 0
        self._ended = False
        self._news = asyncio.Event()
        """Something came, or went out."""
        self.task = asyncio.get_running_loop().create_task(self._run(method), name=stream.head.path)

    def came(self, messages: tuple[bytes, ...]) -> None:
        """Take more of the caller's messages."""
        if self._stream.answered:
            return
        self._messages.extend(messages)
        self._note_unread(sum(map(_held, messages)))
        self._news.set()
        if not self._stream.full:  # a health check is answered whatever others hold; so little is bounded by MOST_CALLS
            return
        try:
            self._unfinished.check()
        except CallError as error:
            self.end(error)

    def ended(self) -> None:
        """Note that no more messages will come."""
        self._ended = True
        self._news.set()

    def look(self) -> None:
        """Note that some of the answers may have gone out: the peer was heard of."""
        self._news.set()

    def end(self, error: CallError) -> None:
        """Stop, and tell the caller why."""
        self._outgoing.end(self._stream, error.status, error.text)
        self._flush()
        self.cancel()

    def cancel(self) -> None:
        """Stop: nobody waits for it."""
        self._forget()
        self.task.cancel()

    def let_go(self) -> None:
        """Drop what leads back here, now that the task is over: what goes round in a circle only the collector finds. A task that
        was cancelled keeps the exception, which keeps our frames.
        """
        self._stream.work = None
        del self.task

    async def _run(self, method: Method) -> None:
        """Call the method and send what it answers, and how it ends."""
        status, text = GrpcStatus.OK, ""
        try:
            async with asyncio.timeout(self._stream.head.timeout_s), aclosing(method(self._read())) as answers:
                await self._send(answers)
        except CallError as error:
            status, text = error.status, error.text
        except TimeoutError:
            status, text = GrpcStatus.DEADLINE_EXCEEDED, "the deadline has passed"
        except Exception as error:  # noqa: BLE001 — a defect of the method: its caller shall not wait in vain
            context = {"message": f"{self._stream.head.path} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            status, text = GrpcStatus.UNKNOWN, "internal error"
        self._forget()
        self._outgoing.end(self._stream, status, text)
        self._flush()

    async def _send(self, answers: AsyncGenerator[bytes, None]) -> None:
        async for message in answers:
            self._outgoing.message(self._stream, message)
            self._flush()
            await asyncio.sleep(0)  # so that it is written, and we know whether the peer reads
            while self._outgoing.held or len(self._stream.unsent or ()) > MOST_UNSENT:
                self._news.clear()
                await self._news.wait()

    async def _read(self) -> AsyncIterator[bytes]:
        """Yield the caller's messages until it has ended."""
        while self._messages or not self._ended:
            if not self._messages:
                self._news.clear()
                await self._news.wait()
                continue
            message = self._messages.popleft()
            self._note_unread(-_held(message))
            self._stream.ticks = 0
            self._requests.give_room(self._stream)
            self._flush()
            yield message

    def _forget(self) -> None:
        """Drop what the method will not read."""
        self._messages.clear()
        self._note_unread(-self._unread)

    def _note_unread(self, change: int) -> None:
        self._unread += change
        self._unfinished.bytes += change
        self._stream.full = self._unread > MOST_UNREAD


def _held(message: bytes) -> int:
    """Return what a message counts for: an empty one is held, too."""
    return PREFIX_BYTES + len(message)
