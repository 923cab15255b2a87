"""Tests with nghttp2's own programs, h2load and nghttp. Not part of `make test`: see `make test-h2load`."""
