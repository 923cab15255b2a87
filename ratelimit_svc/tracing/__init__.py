"""Tracing: spans of sampled requests, for whoever collects them (OpenTelemetry).

context   what a request's headers say of its trace. Pure
traces    which requests are sampled: those whose callers are, and of the others a share
spans     spans for OpenTelemetry's SDK, which sends them in a thread of its own

Rule 1: only sampled requests cost anything, and without TRACING_ENABLED nothing here is made.
Rule 2: what goes wrong with a span, or with its collector, harms no request.
"""
