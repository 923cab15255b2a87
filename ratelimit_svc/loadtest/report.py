"""A result as one page of HTML: it needs no other file, no script and no network, so it can be mailed, or kept as an artefact."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from ratelimit_svc.loadtest import charts
from ratelimit_svc.loadtest.calls import OK, PERCENTILES, histogram
from ratelimit_svc.loadtest.counters import Counts, Look
from ratelimit_svc.loadtest.result import Result, machine
from ratelimit_svc.loadtest.thresholds import Verdict

COLORS = ("s1", "s2", "s3", "s4", "s5")
TITLES = {
    "p50_ms": "half of all calls within, ms",
    "p99_ms": "99 of 100 calls within, ms",
    "error_share": "calls without an answer",
    "policy_share": "decided without the store",
    "sent_share": "sent, of what was meant to be",
}
"""The thresholds in words; any other is a rule, and stands for its fullest window."""
PARTS = {"error_share", "policy_share", "sent_share"}
RATE_S = 0.5
"""Over so long a rate is taken from the counters."""


def page(result: Result) -> str:
    """Return the page."""
    outcome = "held" if result.held else "failed"
    where = f"{machine()}, load average {result.load_average:g} before"
    about = f"{result.service} · {result.started} · {where}"
    sections = [
        f"<h1>Load test: {escape(result.profile)} <span class={outcome}>{outcome}</span></h1>",
        f"<p class=sub>{escape(about)}</p>",
        f"<div class=tiles>{''.join(_tiles(result))}</div>",
        _section("Thresholds", _thresholds(result.verdicts)),
        _section("Calls a second, by code", _calls(result), "as ghz sent them; a denial is an answer as any other: OK"),
        _section("Decisions a second", _decisions(result.looks), "by the service's own counters"),
        _section("Latency", _latency(result), "of all calls, in ms; the scale is logarithmic"),
        _section("Rules", _rules(result), "the fullest window as far as it is certain"),
        _section("What ghz was told", _settings(result)),
    ]
    style = files(__package__).joinpath("report.css").read_text()
    head = '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
    return f"{head}<title>{escape(result.profile)}: {outcome}</title><style>{style}</style><main>{''.join(sections)}</main>\n"


def _section(title: str, body: str, note: str = "") -> str:
    aside = f" <small>{escape(note)}</small>" if note else ""
    return f"<section><h2>{escape(title)}{aside}</h2>{body}</section>" if body else ""


def _tiles(result: Result) -> Iterable[str]:
    calls, counts = result.calls, result.counts
    of = f"of {result.planned:,} meant" if result.planned else ""
    yield _tile("calls", f"{calls.count:,}", of)
    yield _tile("admitted", f"{counts.admitted:,}" if counts else "not known")
    yield _tile("denied", f"{counts.denied:,}" if counts else "not known")
    yield _tile("no answer", f"{calls.errors:,}")
    yield _tile("without the store", f"{counts.by_policy:,}" if counts else "not known", _failures(counts))
    yield _tile("p99", f"{calls.percentile_us(99) / 1000:.2f} ms")


def _failures(counts: Counts | None) -> str:
    if counts is None or not counts.failures.total():
        return ""
    return ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.failures.items()) if number)


def _tile(name: str, value: str, below: str = "") -> str:
    return f"<div><b>{escape(value)}</b><span>{escape(name)}</span><span>{escape(below)}</span></div>"


def _thresholds(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        word, kind = {True: ("held", "held"), False: ("failed", "failed"), None: ("not known", "unknown")}[verdict.held]
        title = TITLES.get(verdict.name, f"fullest window of {verdict.name}")
        bound = f"{'≥' if verdict.least else '≤'} {_number(verdict.name, verdict.bound)}"
        seen = "–" if verdict.seen is None else _number(verdict.name, verdict.seen)
        rows.append((title, bound, seen, f"<span class={kind}>{word}</span>"))
    return _table(("", "threshold", "seen", ""), rows)


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if name in PARTS else f"{value:,.2f}" if name in TITLES else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the last cell of a row may be HTML, all others are text."""
    titles = "".join(f"<th>{escape(title)}" for title in head)
    body = ["".join(f"<td>{escape(cell)}" for cell in row[:-1]) + f"<td>{row[-1]}" for row in rows]
    return f"<table><tr>{titles}{''.join(f'<tr>{row}' for row in body)}</table>"


def _chart(series: Sequence[charts.Series], unit: str) -> str:
    legend = "".join(f"<span><i class={one.color}></i>{escape(one.name)}</span>" for one in series)
    return f"<div class=legend>{legend}</div>{charts.lines(series, unit=unit)}"


def _calls(result: Result) -> str:
    seconds = result.calls.per_second
    codes = sorted(result.calls.codes, key=lambda code: (code != OK, code))
    series = [
        charts.Series(code, color, [(second + 0.5, found.get(code, 0)) for second, found in enumerate(seconds)])
        for code, color in zip(codes, (COLORS[0], *COLORS[2:]), strict=False)
    ]
    return _chart(series, "calls a second")


def _decisions(looks: Sequence[Look]) -> str:
    rates = [
        (
            (late.ended_us - looks[0].ended_us) / 1e6,
            (late.ended_us - early.ended_us) / 1e6,
            late.counts.since(early.counts),
        )
        for early, late in _spans(looks)
    ]
    if not rates:
        return ""
    return _chart(
        [
            charts.Series("admitted", "s2", [(at, counts.admitted / span) for at, span, counts in rates]),
            charts.Series("denied", "s3", [(at, counts.denied / span) for at, span, counts in rates]),
            charts.Series("without the store", "s4", [(at, counts.by_policy / span) for at, span, counts in rates]),
        ],
        "a second",
    )


def _spans(looks: Sequence[Look]) -> Iterable[tuple[Look, Look]]:
    """Pairs of looks, one behind the other, that are far enough apart for a rate."""
    early = None
    for look in looks:
        if early is None:
            early = look
        elif look.ended_us - early.ended_us >= RATE_S * 1e6:
            yield early, look
            early = look


def _latency(result: Result) -> str:
    calls = result.calls
    found = [
        charts.Bar(
            f"{one.until_us / 1000:.3g}",
            f"{one.from_us / 1000:.3g} to {one.until_us / 1000:.3g} ms: {one.calls:,} calls",
            one.calls,
            COLORS[0],
        )
        for one in histogram(calls.latencies_us)
    ]
    names = [f"p{percent}" if percent < 100 else "longest" for percent in PERCENTILES]
    row = [f"{calls.percentile_us(percent) / 1000:.2f}" for percent in PERCENTILES]
    return charts.bars(found, every=8) + _table(names, [row])


def _rules(result: Result) -> str:
    if result.counts is None:
        return ""
    limits = {verdict.name: verdict.bound for verdict in result.verdicts}
    rules = sorted({rule for (rule, _), number in result.counts.decisions.items() if number})
    rows = []
    for rule in rules:
        counted = [f"{result.counts.decisions[rule, decision]:,}" for decision in ("allowed", "denied")]
        seen, limit = result.fullest.get(rule), limits.get(rule)
        rows.append((rule, *counted, "–" if seen is None else f"{seen:,}", "–" if limit is None else f"{limit:,.0f}"))
    return _table(("rule", "allowed", "denied", "fullest window", "limit"), rows)


def _settings(result: Result) -> str:
    told = {name: value for name, value in result.settings.items() if name not in ("data", "protoset", "data-file")}
    return _table(("", ""), [(name, escape(str(value))) for name, value in told.items()])
