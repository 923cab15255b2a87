"""Channel: the connection to an xDS server, as gRPC is told to make it."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from ratelimit_svc.xds.source import Source, Tls

KEEPALIVE_S = 301.0
"""A server that is silent so long is asked whether it is there. Not sooner: grpc-go takes pings that come more often than every
five minutes for an attack, unless it was told otherwise, and ends the connection."""

KEEPALIVE_TIMEOUT_S = 20.0
"""So long it may take to say that it is."""


async def channel_to(source: Source, *, keepalive_s: float) -> grpc.aio.Channel:
    """Return a channel to a server. It connects at the first call, and reads the files of TLS now.

    Args:
        source: which server.
        keepalive_s: after so much silence the server is asked whether it is there.

    Raises:
        OSError: a file of TLS cannot be read.
    """
    answer_ms = int(min(keepalive_s, KEEPALIVE_TIMEOUT_S) * 1000)
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", source.max_message_bytes),
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", answer_ms),
        ("grpc.http2.ping_timeout_ms", answer_ms),  # what counts where the ping itself had to wait: else a minute
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),  # else the library's own back-off goes on from channel to channel
        ("grpc.enable_retries", 0),
    ]
    if source.tls is None:
        return grpc.aio.insecure_channel(source.url, options)
    if source.tls.name:
        options.append(("grpc.ssl_target_name_override", source.tls.name))
    credentials = await asyncio.to_thread(_credentials, source.tls)
    return grpc.aio.secure_channel(source.url, credentials, options)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    system = ssl.get_default_verify_paths().cafile
    ca = tls.ca or (Path(system) if system else None)
    roots, key, cert = (path.read_bytes() if path else None for path in (ca, tls.key, tls.cert))
    return grpc.ssl_channel_credentials(roots, key, cert)
