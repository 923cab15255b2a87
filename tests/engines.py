"""The one place that names the engines: all of tests/conformance and some of tests/e2e run on each."""

ENGINES = ("http2", "grpcio")
"""What ENGINE may be."""
