"""A proxy in front of a real Redis: by TCP or TLS, and with answers that come in pieces, end, or turn into something else."""

import asyncio
import ssl
from typing import Self

PIECE = 65_536


class Proxy:
    """Listens on a free loopback port, and passes everything on to a server's port until it is told otherwise.

    Resource handling: `async with` opens it; on leaving, all its connections are cut.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._server_port = port
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.piece = PIECE
        """How many bytes of an answer are passed on at a time."""
        self.passes: int | None = None
        """How many bytes of answers are passed on yet; then `instead` is said, and no answer passes any more."""
        self.instead: bytes | None = b""
        """None: the connection is closed."""
        self.deaf = False
        """Questions are not passed on."""
        self.delay_s = 0.0
        """How long answers are kept back."""
        self._open = asyncio.Event()
        self._open.set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        self.let_go()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def say(self, data: bytes) -> None:
        """Say something to everybody who is connected, without being asked."""
        for writer in self._writers:
            if writer.get_extra_info("sockname")[1] == self.port:
                writer.write(data)

    def hold(self) -> None:
        """Keep answers back from now on."""
        self._open.clear()

    def let_go(self) -> None:
        """Pass on what was kept back, and what comes."""
        self._open.set()

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        answers, questions = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers |= {writer, questions}
        answering = asyncio.create_task(self._answer(answers, writer))
        self._tasks.add(answering)
        try:
            while data := await reader.read(PIECE):
                if not self.deaf:
                    questions.write(data)
        except OSError:
            pass
        finally:
            questions.transport.abort()

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await answers.read(PIECE):
            await asyncio.sleep(self.delay_s)
            await self._open.wait()
            if self.passes is None:
                await self._pass_on(data, writer)
                continue
            data, self.passes = data[: self.passes], self.passes - len(data)
            await self._pass_on(data, writer)
            if self.passes <= 0:
                self.passes = None  # the next connection is a good one
                if self.instead is None:
                    break
                writer.write(self.instead)
                while await answers.read(PIECE):
                    pass
        writer.transport.abort()

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(data), self.piece):
            writer.write(data[at : at + self.piece])
            await asyncio.sleep(0)  # so that who reads in this very loop gets each piece by itself
