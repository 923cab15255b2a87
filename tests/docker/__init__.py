"""docker-compose.yml run for real, by a real engine. Not part of `make test`: see `make test-docker`."""
