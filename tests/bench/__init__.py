"""Servers side by side under the same load. Not part of `make test`: see `make bench`, `make soak`, `make distinct`.

workloads   what is asked: rules.yaml, and requests as Envoy would send them
frames      requests as the bytes of HTTP/2
connection  one connection that keeps requests under way, and reads the replies
load        many of these, warmed up, for some seconds
servers     a server on a core of its own, with a Redis of its own
cost        what a process has used: CPU, memory, files; what Redis was told to do
figures     what comes of it: rates, percentiles, medians, who was the limit (pure)
report      the table, the Markdown, the JSON
__main__    `make bench`; soak and distinct are beside it
"""
