"""The demo, top to bottom: a real Envoy, two replicas, one Valkey, three tenants who want more than they may have.

    1. steady             each tenant is held to its limit
    2. a limit is raised  the rule file is edited, nothing restarts
    3. Valkey is killed   each replica enforces its share from its own memory; Valkey comes back
    4. steady again
    5. the proof          what was seen from outside against what was promised

Everything runs on loopback and in one temporary folder; nothing is left.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from rich.console import Console

from ratelimit_svc.demo import shipped
from ratelimit_svc.demo.child import ChildError
from ratelimit_svc.demo.claims import Claim, Facts, claims
from ratelimit_svc.demo.stage import Scene, stage
from ratelimit_svc.demo.table import Board
from ratelimit_svc.demo.traffic import Callers, now_us

RAISED, RAISED_TO = "silver", 40
ASK_FOR = 3
"""Tenants send so many times what they may, after the raise, too; but at least AT_LEAST a second: who wants every place as
soon as it is free must ask often."""
AT_LEAST = 60.0

SECONDS = 6.0
"""The length of each phase."""

BROKEN, FAILED, INTERRUPTED = 1, 2, 130
"""Exit statuses: a claim did not hold; it could not be played; as shells count a SIGINT."""


def run(*, keep: bool = False, seconds: float | None = None) -> int:
    """Play the demo and return its exit status: 0 only if all that is claimed at its end held.

    Args:
        keep: leave everything running afterwards, and say how to play with it, until Ctrl-C.
        seconds: the length of each of the four phases; None: SECONDS.
    """
    with tempfile.TemporaryDirectory(prefix="ratelimit-demo-") as folder:
        try:
            return asyncio.run(_run(Path(folder), keep=keep, seconds=seconds or SECONDS))
        except ChildError as error:
            print(error, file=sys.stderr)
            return FAILED
        except (KeyboardInterrupt, asyncio.CancelledError):
            return INTERRUPTED


async def _run(folder: Path, *, keep: bool, seconds: float) -> int:
    console = Console()
    rules = Path(shutil.copy(shipped("demo.yaml"), folder / "demo.yaml"))
    envoy_filter = shipped("istio/envoyfilter-gateway.yaml").read_text()
    with _stopped_by_sigterm():
        console.print("starting Valkey, two replicas, Envoy and an application …")
        async with stage(folder, rules=rules, envoy_filter=envoy_filter) as scene:
            facts = await play(scene, console=console, seconds=seconds)
            proof = claims(facts)
            held = _print_proof(proof, console)
            if not held:  # the logs are removed with the folder
                print(*(child.tail() for child in scene.children), sep="\n", file=sys.stderr)
            if keep:
                await _keep(scene, console)
    return 0 if held else BROKEN


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the story as Ctrl-C does: in order, with everything stopped and removed."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def play(scene: Scene, *, console: Console, seconds: float) -> Facts:
    """Play the four phases and return what happened."""
    limits = _limits(scene.rules)
    rates = {
        tenant: max(AT_LEAST, ASK_FOR * max(limit, RAISED_TO * (tenant == RAISED))) for tenant, limit in limits.items()
    }
    callers = Callers(scene.envoy.url, rates)
    async with callers, Board(callers.seen, limits, console=console) as board:
        started = await _phase(board, "1. steady: each tenant is held to its limit", seconds)

        edited = now_us()
        await scene.edit_rules(_with_raised_limit(scene.rules.read_text()))
        board.limits[RAISED] = RAISED_TO
        in_force = await _phase(board, f"2. the limit of {RAISED} was raised to {RAISED_TO} in the rule file", seconds)

        by_share = await _answers_by_share(scene)
        killed = now_us()
        await scene.store.kill()
        await _phase(board, "3. Valkey was killed: each replica enforces its share", seconds)
        await scene.restart_store()

        by_share -= await _answers_by_share(scene)
        back = await _phase(board, "4. Valkey is back: one window for all again", seconds)
        by_share += await _answers_by_share(scene)
        ended = now_us()
    stats = await scene.envoy.rate_limit_stats()
    return Facts(
        replicas=len(scene.replicas),
        limits=limits,
        raised=RAISED,
        raised_to=RAISED_TO,
        started_us=started,
        edited_us=edited,
        in_force_us=in_force,
        killed_us=killed,
        back_us=back,
        ended_us=ended,
        seen=callers.seen,
        arrived=scene.upstream.arrived,
        unanswered=stats.get("error", 0),
        by_share=by_share,
        fallen=tuple(child.name for child in scene.children if not child.running),
    )


def _limits(rules: Path) -> dict[str, int]:
    """The tenants that the rule file names, and their limits."""
    descriptors = yaml.safe_load(rules.read_text())["descriptors"]
    named = [one for one in descriptors if one["key"] == "tenant" and "value" in one]
    return {one["value"]: one["rate_limit"]["requests_per_unit"] for one in named}


async def _phase(board: Board, title: str, seconds: float) -> int:
    """Show a title, let the callers go on for a time, and return when it began."""
    board.phase = title
    began = now_us()
    await asyncio.sleep(seconds)
    return began


def _with_raised_limit(rules: str) -> str:
    document = yaml.safe_load(rules)
    for one in document["descriptors"]:
        if one.get("value") == RAISED:
            one["rate_limit"]["requests_per_unit"] = RAISED_TO
    return yaml.safe_dump(document, sort_keys=False)


async def _answers_by_share(scene: Scene) -> int:
    return int(sum(await scene.metrics("ratelimit_svc_policy_decisions_total")))


def _print_proof(proof: list[Claim], console: Console) -> bool:
    """Print every claim, and return whether all held."""
    console.print("\nThe proof, from what the callers saw:\n")
    for claim in proof:
        mark = "[green]held  [/]" if claim.held else "[bold red]BROKEN[/]"
        console.print(f"  {mark}  {claim.text}", highlight=False, soft_wrap=True)
    broken = sum(not claim.held for claim in proof)
    console.print(f"\n{broken} of {len(proof)} did not hold." if broken else f"\nAll {len(proof)} held.")
    return not broken


async def _keep(scene: Scene, console: Console) -> None:
    """Say how to play with it, and bring Valkey back each time it is killed, until cancelled."""
    command = "ratelimit-svc" if shutil.which("ratelimit-svc") else f"{sys.executable} -m ratelimit_svc"
    console.print(
        f"""
Everything is still running. Try, in another terminal:

  curl -i -H 'x-tenant: bronze' {scene.envoy.url}/
  for i in $(seq 15); do curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'x-tenant: bronze' {scene.envoy.url}/; done
  {command} hit {scene.replicas[0].address} shop tenant=gold
  {os.environ.get("EDITOR", "vi")} {scene.rules}                  # a new limit acts at once
  curl -s {scene.replicas[0].http}/metrics | grep ratelimit_svc_
  kill -9 {scene.store.pid}                  # Valkey; it comes back within five seconds

Ctrl-C stops it all.""",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(5)
            if not scene.store.running:
                await scene.store.start()
                console.print(f"Valkey runs again: kill -9 {scene.store.pid}", highlight=False)
