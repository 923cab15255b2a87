"""The methods that every engine serves beside the RateLimitService: `grpc.health.v1` and server reflection."""

from collections.abc import Mapping

from ratelimit_svc.wire import health, reflection, rls
from ratelimit_svc.wire.calls import Method


def methods(watched: health.Health) -> Mapping[str, Method]:
    """Return each method by its path, `/grpc.health.v1.Health/Check`.

    ShouldRateLimit is not one of them: engines hand its bytes to the limiter as they are.
    """
    info = reflection.describing((rls.SERVICE, health.SERVICE, reflection.SERVICE))
    return {
        f"/{health.SERVICE}/Check": watched.check,
        f"/{health.SERVICE}/List": watched.list,
        f"/{health.SERVICE}/Watch": watched.watch,
        f"/{reflection.SERVICE}/ServerReflectionInfo": info,
        f"/{reflection.SERVICE_V1}/ServerReflectionInfo": info,
    }
