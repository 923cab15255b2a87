"""`python -m ratelimit_svc` is `ratelimit-svc`."""

from ratelimit_svc.cli import main

main()
