"""The product shown at work, with real parts and nothing simulated.

    story     what the demo does, top to bottom        (read this first)
    stage     all parts together: Envoy, replicas, Valkey, an application
    parts     the processes: Valkey, Redis, the service's replicas, Envoy
    child     one process: started, ready, stopped, never left behind
    istio     an EnvoyFilter applied to an Envoy's configuration, as Istio would
    envoy     that configuration: built, checked, validated
    compose   the same for docker-compose.yml, as a file
    traffic   callers who send more than they may, and the application behind Envoy
    proof     the judge: was any window too full, was anyone starved?
    answers   the same of ghz's log, by the bodies in it
    claims    what the demo says of itself at its end, and whether it is so
    table     what one sees meanwhile

Tests start the same parts. Nothing here is imported by the service.
"""

from pathlib import Path


def shipped(name: str) -> Path:
    """Return the file that users copy, `istio/…` or `demo.yaml`: from the wheel, or in a checkout from where it is written."""
    here = Path(__file__).parent
    inside_wheel = here / "shipped" / name
    if inside_wheel.exists():
        return inside_wheel
    return here.parents[1] / ("deploy" if name.startswith("istio/") else "config") / name
