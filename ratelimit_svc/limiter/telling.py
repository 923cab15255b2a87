"""Telling: a verdict becomes the bytes of an answer, with what is told beside it where that is asked for. Pure.

shadow_mode         every request is told OK; its statuses say what enforcing would do
header_names        what Envoy adds to the application's answer (`response_headers`)
dynamic_metadata    what Envoy's access log may carry (`dynamic_metadata`): of plans that have kept their request
"""

from collections.abc import Callable, Sequence

from ratelimit_svc.limiter import dynamic_metadata, response_headers, verdicts
from ratelimit_svc.model import Code, Plan, Verdict


class Telling:
    """Makes answers.

    Args:
        encode: Verdict to bytes, `verdicts.earlier` included: its other arguments are what that takes.
        shadow_mode: nobody is denied.
        header_names: of the limit, what is left of it, and its reset; empty: no headers.
        dynamic_metadata: plans have kept their requests.
    """

    def __init__(
        self,
        encode: Callable[[Verdict, int, Sequence[int]], bytes],
        *,
        shadow_mode: bool,
        header_names: Sequence[str],
        dynamic_metadata: bool,
    ) -> None:
        self._encode = encode
        self._shadow_mode = shadow_mode
        self._header_names = header_names
        self._plain = not (shadow_mode or header_names or dynamic_metadata)

    def tell(self, plan: Plan, verdict: Verdict, later: int = 0, hits: Sequence[int] = ()) -> bytes:
        """Return the bytes of an answer.

        Args:
            plan: what was asked.
            verdict: as the last of a line's granted requests is told.
            later: how many come after this one.
            hits: what each of them takes; see `verdicts.earlier`.
        """
        if self._plain:
            return self._encode(verdict, later, hits)
        if self._shadow_mode and verdict.code is Code.OVER_LIMIT:
            verdict = verdict._replace(code=Code.OK)
        if self._header_names or plan.request is not None:
            if later:
                verdict, later = verdicts.earlier(verdict, later, hits), 0
            verdict = self._more(plan, verdict)
        return self._encode(verdict, later, hits)

    def _more(self, plan: Plan, verdict: Verdict) -> Verdict:
        if self._header_names:
            verdict = verdict._replace(headers=response_headers.describe(plan, verdict, self._header_names))
        if plan.request is not None:
            verdict = verdict._replace(metadata=dynamic_metadata.describe(plan, plan.request, verdict))
        return verdict
