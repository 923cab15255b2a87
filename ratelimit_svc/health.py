"""Health: is this replica ready, that is, can it answer? If not, why not.

A store that is away never makes a replica unready, unless the operator asked for that: it would take every replica away
at once, and with them the answers by policy that make an outage bounded.
"""

import asyncio


class Health:
    """The reasons for not being ready, each a few words."""

    def __init__(self, *reasons: str) -> None:
        self._reasons = dict.fromkeys(reasons)
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Health: {'; '.join(self._reasons) or 'ready'}>"

    @property
    def ready(self) -> bool:
        """Whether there is no reason against it."""
        return not self._reasons

    def reasons(self) -> tuple[str, ...]:
        """Return what stands against being ready."""
        return tuple(self._reasons)

    def note(self, reason: str, *, holds: bool) -> None:
        """Say whether a reason holds now."""
        if holds:
            self._reasons[reason] = None
        else:
            self._reasons.pop(reason, None)
        self._changed.set()

    async def change(self) -> None:
        """Wait until something was noted since the last call."""
        await self._changed.wait()
        self._changed.clear()
