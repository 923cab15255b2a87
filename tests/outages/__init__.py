"""Every plug pulled while real replicas serve real load: what DESIGN promises of an outage, seen from outside.

    proxy      between a replica and its store: passes, holds, loses, delays, cuts, resets
    calls      one connection of a caller, each request with a deadline of its own, and what became of it
    load       many callers at a steady rate, whatever the answers
    machine    what the machine took of the time, so that it is not held against the service
    looks      what replicas say of themselves, again and again
    judges     what is wrong with all that; pure
    stage      a store, replicas behind proxies, a load and looks, put together
    schedule, chaos, report    two minutes of everything at once (`make chaos`)

Nothing here reaches into the service: replicas are processes, and are asked over gRPC and HTTP.
"""
