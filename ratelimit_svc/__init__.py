"""ratelimit-svc: an external rate-limit service for Envoy, with exact sliding windows.

The way of a request, and where to look:

    wire      bytes from Envoy, in and out           (wire/rls, wire/engine: grpcio or http2, wire/tls)
    limiter   plan → batch → take → verdict          (read this first: limiter/__init__, which says what its parts are)
    rules     which rules meet which descriptor      (rules/tables has every key; rules/load, rules/match, rules/watch)
    store     where windows are kept                 (store/memory, store/redis, store/keys)
    breaker   whether to call a store node at all    (pressure: whether this process itself keeps up; both count in a ring)
    windows   the arithmetic, in Python and in Lua   (windows/batch; sliding_window, fixed_window, token_bucket,
                                                      reference_window)

    why a request was limited: rules/explain before it comes, recent and limiter/denials once it has,
    limiter/dynamic_metadata for Envoy's log.

    xds has rules from a server instead of files, statsd tells a server what metrics count, tracing makes spans of sampled
    requests.

    model has the values all of them speak, server the life of the process and state what it knows of itself, settings
    what it can be told, metrics what it counts, admin its HTTP sides, cli its commands, shims those of the reference
    implementation, demo the product shown at work, loadtest the product under load.
"""

__version__ = "0.1.0"
