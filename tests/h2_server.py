"""A server by h2, which raises on whatever breaks the protocol. How each request is answered is a test's to say."""

import asyncio
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings


class H2Server(asyncio.Protocol):
    """One connection, and what it has seen."""

    def __init__(self, answer: Callable[[Any, Any, int], None], settings: dict[h2.settings.SettingCodes, int]) -> None:
        self._answer = answer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.requests = 0
        self.headers: list[list[tuple[str, str]]] = []
        self.under_way: set[int] = set()
        self.most_under_way = 0
        self.pings = 0

    def connection_made(self, transport):
        self.transport = transport
        self._h2.initiate_connection()
        self._h2.ping(b"are you?")
        self.flush()

    def data_received(self, data):
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.headers.append([(str(name), str(value)) for name, value in event.headers])
                self.under_way.add(event.stream_id)
                self.most_under_way = max(self.most_under_way, len(self.under_way))
            elif isinstance(event, h2.events.PingAckReceived):
                self.pings += 1
            elif isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.requests += 1
                self.under_way.discard(event.stream_id)
                self._answer(self, self._h2, event.stream_id)
        self.flush()

    def flush(self):
        if not self.transport.is_closing():
            self.transport.write(self._h2.data_to_send())
