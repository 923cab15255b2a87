"""ratelimit-svc: an external rate-limit service for Envoy, with exact sliding windows.

The way of a request, and where to look:

    wire      bytes from Envoy, in and out           (wire/rls, wire/grpcio)
    limiter   plan → batch → take → verdict          (read this first; its parts: plans, waiting, verdicts, deadlines)
    rules     which rule meets which descriptor      (rules/load, rules/match, rules/watch)
    store     where windows are kept                 (store/memory, store/redis, store/keys)
    windows   the arithmetic, in Python and in Lua   (windows/sliding_window, windows/batch)

    model has the values all of them speak, server the life of the process, settings what it can be told,
    admin its HTTP side, cli its commands, demo the product shown at work.
"""

__version__ = "0.1.0"
