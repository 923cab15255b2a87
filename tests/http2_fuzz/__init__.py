"""The `http2` core, fuzzed: any bytes, and `h2` as the second opinion on them.

wires ──── Hypothesis writes connections as clients do
damage ─── and changes a little in most of them
seeds ──── writes some of them into files, and `target` (atheris, `make fuzz`) damages those, guided by coverage
  │
judge ──── one connection's bytes: what must hold whatever they are
  ├ pieces ── bytes → preface, frames, and the server's own acts, which ride along as frames of unknown types (RFC 9113 §5.5)
  ├ ours ──── the core, fed; what it said and did, as a `Step`
  ├ second ── h2 and a gRPC of the tests' own, fed the same; its `Step`
  ├ allowed ─ where the two may differ, and which section says so
  └ ledger ── windows, bounds, and a client that has to accept what we say
"""
