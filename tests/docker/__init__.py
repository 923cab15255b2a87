"""docker-compose.yml, and the image in the place of the reference implementation's, run by a real engine. Not part of `make test`: see `make test-docker`."""
