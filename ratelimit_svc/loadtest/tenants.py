"""Who asks, where many do: the r-th busiest of n tenants in proportion to 1/r, as callers of one service often are (Zipf).

The three busiest are those whom the shipped rules name, so that their windows are known and are full.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

NAMED = ("gold", "silver", "bronze")
"""Tenants with rules of their own in config/demo.yaml and deploy/istio/ratelimit.yaml, the busiest first."""


@dataclass(frozen=True, slots=True)
class Zipf:
    """Requests by Zipf's law: always the same ones for the same numbers."""

    tenants: int
    """How many different ones there are."""
    exponent: float
    """The r-th busiest asks in proportion to 1 / r to this power."""
    requests: int
    """So many, after which ghz begins again."""
    seed: int = 1

    def drawn(self) -> Iterator[dict[str, Any]]:
        """Yield the requests, as ghz reads them."""
        ranks = range(1, self.tenants + 1)
        weights = list(accumulate(rank**-self.exponent for rank in ranks))
        chosen = random.Random(self.seed).choices(ranks, cum_weights=weights, k=self.requests)  # noqa: S311 - no secret
        return (asked_by(named(rank)) for rank in chosen)


def named(rank: int) -> str:
    """Return the name of a tenant by its place among the busiest."""
    return NAMED[rank - 1] if rank <= len(NAMED) else f"tenant-{rank}"


def asked_by(tenant: str) -> dict[str, Any]:
    """Return a request as Envoy's for a tenant."""
    return {"domain": "shop", "descriptors": [{"entries": [{"key": "tenant", "value": tenant}]}]}
