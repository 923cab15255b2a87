"""The `http2` engine: HTTP/2 (RFC 9113) and gRPC in one pass, for a server. Bytes in → requests; answers → bytes out.

engine ── listens; one `peer` a connection, one clock for all of them, and what they share (`shared`)
handshake  with TLS: accepts, and counts what is accepted; whose handshake is over is a `peer`
peer ──── a socket: bytes to `connection`, its requests to the limiter and to `calls`, `outgoing`'s bytes back
  │
  ├ connection ── frames in: states, flow control, what breaks the protocol          (no socket, no clock, no asyncio
  │   ├ heads ──── header block → what the request is, remembered by its bytes         below this line)
  │   │   └ fields ── HPACK representations, cut and written
  │   ├ messages ─ DATA → gRPC messages
  │   ├ streams ── those that are open, and those we reset
  │   └ calm ───── how much work a peer may make for nothing
  └ outgoing ──── answers → frames, as the peer's windows let them
"""
