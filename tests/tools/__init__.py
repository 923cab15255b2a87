"""Tests with programs that Go builds: ghz and h2spec. Not part of `make test`: see `make test-tools`."""
