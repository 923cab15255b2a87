"""Calls with a task of their own: what they read and write, and how they end. Real methods on a real core, without a socket."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from ratelimit_svc.wire.calls import LARGEST_ONLY, CallError, GrpcStatus, Method, only
from ratelimit_svc.wire.http2.call import MOST_UNREAD, MOST_UNSENT, Call
from ratelimit_svc.wire.http2.frames import LARGEST_FRAME
from ratelimit_svc.wire.http2.requests import MOST_TICKS, What
from tests.http2.client import OTHER, Client, block, body, head, message, reset, settings, window
from tests.waiting import until

PIECE = b"x" * 10_000


class Methods:
    """What the calls here do."""

    def __init__(self) -> None:
        self.read: list[bytes] = []
        self.said = 0
        self.closed = False
        self.go = asyncio.Event()

    async def echo(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for each in requests:
            self.read.append(each)
            yield each

    async def slow(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Reads when it is told to."""
        await self.go.wait()
        async for each in requests:
            self.read.append(each)
        yield b"all"

    async def pour(self, _requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(100):
                self.said += 1
                yield PIECE
        finally:
            self.closed = True

    async def hang(self, _requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            self.closed = True

    async def one(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        yield await only(requests)

    async def fail(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for each in requests:
            yield each
            raise CallError(GrpcStatus.NOT_FOUND, "none")

    async def broken(self, _requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        raise ZeroDivisionError
        yield b""


class Caller(Client):
    """A client whose calls reach a method."""

    def __init__(self, method: Method, **named: str) -> None:
        super().__init__()
        self.method = method
        self.calls: dict[int, Call] = {}
        self.said: list[str] = []
        self.say(head(1, block({":path": OTHER, **named})))

    def say(self, *data: bytes) -> None:
        """Send, and hand on what happened, as the socket's side does."""
        self.said += self.send(*data)
        events, self.events = self.events, []
        for event in events:
            number = event.stream.number
            if event.what is What.BEGAN:
                self.calls[number] = Call(
                    self.method,
                    event.stream,
                    requests=self.connection.requests,
                    outgoing=self.outgoing,
                    unfinished=self.unfinished,
                    flush=self.flush,
                )
            elif event.what is What.CAME:
                self.calls[number].came(event.messages)
            elif event.what is What.ENDED:
                self.calls[number].ended()
            else:
                self.calls[number].cancel()
        for call in self.calls.values():
            call.look()

    def flush(self) -> None:
        self.said += self.heard()

    async def over(self) -> list[str]:
        """Wait for the call's end; return all that was heard on its stream."""
        await asyncio.wait([self.calls[1].task])
        self.flush()
        return [words for words in self.said if words.split()[1:2] == ["1"]]


@pytest.fixture
def does() -> Methods:
    """A method for each need."""
    return Methods()


async def turns(count: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_messages_are_answered_as_they_come(does):
    """A call that streams both ways."""
    caller = Caller(does.echo)
    caller.say(body(1, message(b"a"), end=False))
    await until(lambda: does.read == [b"a"])
    caller.say(body(1, message(b"b") + message(b"")))
    assert await caller.over() == [
        "headers 1 200", "data 1 6", "data 1 6", "data 1 5", "headers 1 0 end"
    ]  # fmt: skip
    assert caller.held == (0, 0, 0)


async def test_a_method_waits_for_a_peer_that_grants_no_window(does):
    """What it says beyond some 64 kB; and goes on as soon as the window grows, though nothing else comes."""
    caller = Caller(does.pour)
    await turns()
    assert does.said * len(PIECE) <= 65_535 + MOST_UNSENT + 2 * len(PIECE)
    before = does.said
    caller.say(window(0, 30_000), window(1, 30_000))
    await until(lambda: does.said > before)
    caller.say(window(0, 2**20), window(1, 2**20))
    await until(lambda: does.said == 100)
    assert (await caller.over())[-2:] == ["headers 1 0 end", "reset 1 NO_ERROR"]
    assert caller.held == (0, 0, 0)


async def test_a_method_waits_for_a_peer_that_does_not_read(does):
    """However large its windows are: what is not sent yet is in our memory."""
    caller = Caller(does.hang)
    caller.method = does.pour
    caller.say(settings(INITIAL_WINDOW_SIZE=2**30), window(0, 2**30))
    caller.outgoing.held = True
    caller.say(head(3, block({":path": OTHER})))
    await turns()
    assert does.said == 1
    caller.outgoing.held = False
    caller.calls[3].look()
    await until(lambda: does.said == 100)
    caller.calls[1].cancel()


async def test_a_caller_waits_for_a_method_that_does_not_read(does):
    """It is granted room only for what the method has read, and what waits counts; empty messages, too."""
    caller = Caller(does.slow)
    data = message(b"y" * (LARGEST_FRAME - 5))
    for _ in range(4):
        caller.say(body(1, data[: LARGEST_FRAME - 1], end=False), body(1, data[-1:], end=False))
    windows = [words for words in caller.said if words.startswith("window 1")]
    assert caller.unfinished.bytes == 4 * len(data)
    assert not caller.streams.open[1].full
    caller.say(body(1, message(b"") * 3000, end=False))
    assert caller.unfinished.bytes > MOST_UNREAD
    assert caller.streams.open[1].full
    caller.say(body(1, message(b"") * 3000, end=False))
    caller.say(body(1, message(b"") * 3000, end=False))
    assert [words for words in caller.said if words.startswith("window 1")] == windows
    does.go.set()
    await until(lambda: len(does.read) == 9004)
    assert caller.unfinished.bytes == 0
    assert len([words for words in caller.said if words.startswith("window 1")]) == len(windows) + 1
    caller.say(body(1, b""))
    assert (await caller.over())[-1] == "headers 1 0 end"


async def test_what_methods_do_not_read_is_bounded_in_all(does):
    """Beyond, whoever sent the last has to go; its bytes go with it."""
    caller = Caller(does.slow)
    caller.unfinished.most = 10_000
    caller.say(*(body(1, message(PIECE), end=False) for _ in range(7)))
    heard = await caller.over()
    assert heard[1:] == ["headers 1 200 8 end", "reset 1 NO_ERROR"]
    assert caller.held == (0, 0, 0)


async def test_what_a_method_does_not_read_is_not_held_for_ever(does):
    """It has some seconds each time that it has too much."""
    caller = Caller(does.slow)
    caller.say(*(body(1, message(PIECE), end=False) for _ in range(6)), body(1, message(b"") * 1200, end=False))
    assert caller.streams.open[1].full
    assert caller.tick(MOST_TICKS) == []
    does.go.set()
    await until(lambda: len(does.read) == 1206)
    assert caller.tick(MOST_TICKS) == []
    does.go.clear()
    other = Caller(does.slow)
    other.say(*(body(1, message(PIECE), end=False) for _ in range(6)), body(1, message(b"") * 1200, end=False))
    assert other.tick(MOST_TICKS + 1) == ["reset 1 CANCEL"]
    other.say()
    assert other.held == (0, 0, 0)
    assert caller.held == (1, 0, 0)
    caller.calls[1].cancel()


async def test_whatever_others_hold_small_calls_are_answered(does):
    """A health check is, as long as there is room for calls at all."""
    caller = Caller(does.one)
    caller.unfinished.bytes = caller.unfinished.most
    caller.say(body(1, message(b"x")))
    assert (await caller.over())[-1] == "headers 1 0 end"


ENDS = [
    ("fail", message(b"x"), ["headers 1 200", "data 1 6", "headers 1 5 end"]),
    ("fail", b"", ["headers 1 200 0 end"]),
    ("one", b"", ["headers 1 200 12 end"]),
    ("one", message(b"x"), ["headers 1 200", "data 1 6", "headers 1 0 end"]),
    ("one", message(b"x") * 2, ["headers 1 200 12 end"]),
    ("one", message(b"x" * LARGEST_ONLY + b"x"), ["headers 1 200 8 end"]),
    ("echo", b"", ["headers 1 200 0 end"]),
    ("echo", message(b"x")[:-1], ["headers 1 200 13 end"]),
]


@pytest.mark.parametrize(("method", "data", "words"), ENDS)
async def test_how_calls_end(does, method, data, words):
    """Trailers after messages, Trailers-Only without."""
    caller = Caller(getattr(does, method))
    pieces = [data[at : at + LARGEST_FRAME] for at in range(0, len(data), LARGEST_FRAME)]
    for piece in pieces:
        caller.say(body(1, piece, end=False))
    caller.say(body(1, b""))
    heard = [each for each in await caller.over() if not each.startswith("window")]
    assert heard == words
    assert caller.held == (0, 0, 0)


async def test_a_defect_is_told_to_the_log_and_not_to_the_caller(does):
    """Whatever a method raises."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    caller = Caller(does.broken)
    assert (await caller.over())[0] == "headers 1 200 2 end"
    assert isinstance(told[0], ZeroDivisionError)


@pytest.mark.parametrize("timeout", ["1m", "0n"])
async def test_a_deadline_ends_the_call_and_closes_the_method(does, timeout):
    """DEADLINE_EXCEEDED; the longest there is waits for as long."""
    caller = Caller(does.hang, **{"grpc-timeout": timeout})
    assert await caller.over() == ["headers 1 200 4 end", "reset 1 NO_ERROR"]
    assert does.closed or timeout == "0n"  # it may not even have begun


async def test_the_longest_deadline(does):
    """99 999 999 hours."""
    caller = Caller(does.echo, **{"grpc-timeout": "99999999H"})
    caller.say(body(1, message(b"x")))
    assert (await caller.over())[-1] == "headers 1 0 end"


@pytest.mark.parametrize("method", ["hang", "pour"])
async def test_a_caller_who_goes_ends_the_method(does, method):
    """At once, whether it works or waits to say more; nothing is said any more."""
    caller = Caller(getattr(does, method))
    await turns()
    said = len(caller.said)
    caller.say(reset(1))
    await caller.over()
    assert does.closed
    assert caller.said[said:] == []
    assert caller.held == (0, 0, 0)


async def test_a_caller_who_goes_before_the_method_begins(does):
    """In the same read."""
    caller = Caller(does.hang)
    caller.say(head(3, block({":path": OTHER})), body(3, message(b"x"), end=False), reset(3))
    await asyncio.wait([caller.calls[3].task])
    assert caller.calls[3].task.cancelled()
    caller.say(reset(1))
    await caller.over()
    assert caller.held == (0, 0, 0)


async def test_what_is_not_read_is_dropped_with_the_call(does):
    """By a method that ends without having read all."""
    caller = Caller(does.fail)
    caller.say(body(1, message(PIECE) + message(b"rest") * 5, end=False))
    assert (await caller.over())[-2:] == ["headers 1 5 end", "reset 1 NO_ERROR"]
    assert caller.held == (0, 0, 0)


async def test_only_holds_no_more_than_it_needs():
    """The second message ends it: a caller who goes on for ever fills nothing."""

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x"

    async with aclosing(endless()) as requests:
        with pytest.raises(CallError, match="several were sent"):
            await only(requests)
