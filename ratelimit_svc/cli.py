"""The commands: parse, call, print. What they do is elsewhere."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratelimit_svc import __version__
from ratelimit_svc.errors import RulesError, SettingsError
from ratelimit_svc.model import RULE_ALGORITHMS, Algorithm, Entry, Kind, Unit
from ratelimit_svc.rules.files import RuleFile, read
from ratelimit_svc.rules.load import load
from ratelimit_svc.rules.match import RuleSet
from ratelimit_svc.settings import TABLE, Setting, Settings
from ratelimit_svc.settings.kinds import BOOLEAN, BOOLEAN_IF_SET

OK, DENIED, FAILED = 0, 1, 2
"""Exit statuses: fine; a finding, a denial or no match; it could not be done."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    arguments = _parser().parse_args(argv)
    try:
        sys.exit(arguments.command(arguments))
    except (SettingsError, OSError) as error:
        print(f"ratelimit-svc: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except RulesError as error:
        print(error, file=sys.stderr)
        sys.exit(DENIED)
    except KeyboardInterrupt:
        sys.exit(130)  # as shells count a SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ratelimit-svc", description="External rate-limit service for Envoy.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the service", description=_SERVE)
    for setting in TABLE:
        if setting.flag:
            shown = setting.default or "empty"
            serve.add_argument(
                setting.flag,
                dest=setting.field,
                metavar="VALUE",
                **_bare(setting),
                help=f"{setting.doc} {setting.kind.rule[:1].upper()}{setting.kind.rule[1:]}. "
                f"[{setting.variable}; default {shown}]".replace("%", "%%"),
            )
    serve.set_defaults(command=_serve)

    demo = commands.add_parser("demo", help="watch a real Envoy and two replicas hold three tenants to their limits")
    demo.add_argument("--keep", action="store_true", help="leave everything up afterwards, and say how to play with it")
    demo.add_argument("--seconds", type=float, default=None, metavar="S", help="length of each phase")
    demo.set_defaults(command=_demo)

    check = commands.add_parser("check", help="say what is wrong with rule files", description=_CHECK)
    check.add_argument("rules", nargs="+", type=Path, metavar="RULES", help="a rule file, or a folder of them")
    check.add_argument("--lenient", action="store_true", help="take what `serve` takes without STRICT, with warnings")
    _add_rule_options(check)
    check.set_defaults(command=_check)

    explain = commands.add_parser("explain", help="say which rules a request meets, and why not the others")
    explain.add_argument("rules", type=Path, metavar="RULES", help="a rule file, or a folder of them")
    explain.add_argument("domain", metavar="DOMAIN")
    explain.add_argument("entries", nargs="+", metavar="key=value", help="entries; a lone + begins another descriptor")
    _add_manner(explain)
    _add_rule_options(explain)
    explain.set_defaults(command=_explain)

    schema = commands.add_parser("schema", help="print the JSON Schema of rule files, for editors")
    schema.add_argument("--page", action="store_true", help="print the reference page of all keys instead, in Markdown")
    schema.set_defaults(command=_schema)

    settings = commands.add_parser("settings", help="print the page of all settings, in Markdown")
    settings.set_defaults(command=_settings)

    hit = commands.add_parser("hit", help="ask a running service, as Envoy would", description=_HIT)
    hit.add_argument("address", metavar="HOST:PORT", help="the gRPC side")
    hit.add_argument("domain", metavar="DOMAIN")
    hit.add_argument("entries", nargs="+", metavar="key=value", help="entries; a lone + begins another descriptor")
    hit.add_argument(
        "--hits", type=_count, default=0, metavar="N", help="hits_addend: what each request counts (default 1)"
    )
    _add_manner(hit)
    hit.add_argument(
        "--times", type=_count, default=1, metavar="N", help="how many requests to send, one after another"
    )
    hit.add_argument("--timeout", type=float, default=1.0, metavar="S", help="seconds that a call may take (default 1)")
    _add_tls(hit)
    hit.set_defaults(command=_hit)
    return parser


_SERVE = "Each flag goes before the environment variable in brackets. Durations are written as in Go: 100ms, 1m30s."
_CHECK = (
    "Exit status: 0 all good, 1 something is wrong. Warnings of `serve` are errors here, unless --lenient is given."
)
_HIT = "Exit status: 0 all passed, 1 one was over its limit, 2 no answer."


def _bare(setting: Setting) -> dict[str, Any]:
    """A switch may stand alone: `--strict` is `--strict true`."""
    return {"nargs": "?", "const": "true"} if setting.kind in (BOOLEAN, BOOLEAN_IF_SET) else {}


def _add_rule_options(parser: argparse.ArgumentParser) -> None:
    """What the service is told by settings."""
    parser.add_argument("--merge-domains", action="store_true", help="as with MERGE_DOMAIN_CONFIG=true")
    parser.add_argument(
        "--default-algorithm",
        choices=[algorithm.name.lower() for algorithm in RULE_ALGORITHMS],
        default=Algorithm.SLIDING_WINDOW.name.lower(),
        help="as DEFAULT_ALGORITHM says",
    )
    parser.add_argument(
        "--compare", choices=[algorithm.name.lower() for algorithm in RULE_ALGORITHMS], help="as COMPARE says"
    )


def _add_manner(command: argparse.ArgumentParser) -> None:
    """Add how a request asks, beside what it is about."""
    command.add_argument("--check", action="store_true", help="ask with 0 hits: is anything left? Counts nothing")
    command.add_argument("--refund", action="store_true", help="give the hits back (is_negative_hits)")
    command.add_argument(
        "--limit", type=_limit, metavar="N/UNIT", help="bring a limit along, like 5/minute, in place of the rules'"
    )


def _add_tls(command: argparse.ArgumentParser) -> None:
    """Add how to ask a service that has TLS."""
    tls = command.add_argument_group("TLS", "each of these but --tls means TLS as well")
    tls.add_argument("--tls", action="store_true", help="the service's certificate is under a public root")
    tls.add_argument("--tls-ca", type=Path, metavar="FILE", help="PEM roots of the service's certificate")
    tls.add_argument("--tls-cert", type=Path, metavar="FILE", help="our certificate, PEM, where one is asked for")
    tls.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    tls.add_argument("--tls-name", metavar="NAME", help="what the service's certificate says, if not HOST")


def _entry(text: str) -> Entry:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: an entry is written key=value")
    return Entry(key, value)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) <= 2**32 - 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1 to 4294967295")
    return int(text)


def _limit(text: str) -> tuple[int, Unit]:
    number, _, unit = text.partition("/")
    if not number.isdecimal() or len(number) > 10 or int(number) >= 2**32 or unit.upper() not in Unit.__members__:
        raise argparse.ArgumentTypeError(f"{text!r}: a limit is written like 5/minute")
    return int(number), Unit[unit.upper()]


def _serve(arguments: argparse.Namespace) -> int:
    from ratelimit_svc import logs
    from ratelimit_svc.server import serve

    flags = {setting.field: getattr(arguments, setting.field) for setting in TABLE if setting.flag}
    settings = Settings.from_environment(os.environ, flags)
    logs.configure(settings.log_level, settings.log_format)
    if settings.loop == "uvloop":
        import uvloop

        uvloop.run(serve(settings))
    else:
        asyncio.run(serve(settings))
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from ratelimit_svc.demo.story import run
    except ModuleNotFoundError as error:
        print(f"ratelimit-svc demo needs the extra `demo` (no module {error.name}):", file=sys.stderr)
        print("    pip install 'ratelimit-svc[demo]'", file=sys.stderr)
        return FAILED
    return run(keep=arguments.keep, seconds=arguments.seconds)


def rule_files(paths: Sequence[Path]) -> list[RuleFile]:
    """Return all rule files; those of a folder are named with the folder, so that an editor finds them."""
    return [
        replace(file, name=str(path / file.name)) if path.is_dir() else file for path in paths for file in read(path)
    ]


def _load(arguments: argparse.Namespace, files: Sequence[RuleFile], *, strict: bool) -> RuleSet:
    algorithm = Algorithm[arguments.default_algorithm.upper()]
    compare = Algorithm[arguments.compare.upper()] if arguments.compare else None
    return load(files, strict=strict, merge_domains=arguments.merge_domains, algorithm=algorithm, compare=compare)


def _check(arguments: argparse.Namespace) -> int:
    files = rule_files(arguments.rules)
    rules = _load(arguments, files, strict=not arguments.lenient)
    for warning in rules.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"ok: {len(rules.rules)} rules in {len(rules.domains)} domains, {len(files)} files")
    return OK


def _explain(arguments: argparse.Namespace) -> int:
    from ratelimit_svc.rules.explain import explain_request

    rules = _load(arguments, rule_files([arguments.rules]), strict=False)
    for warning in rules.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    try:
        descriptors = _descriptors(arguments.entries)
    except argparse.ArgumentTypeError as error:
        print(f"ratelimit-svc: {error}", file=sys.stderr)
        return FAILED
    explanation = explain_request(rules, arguments.domain, descriptors)
    print(explanation if len(descriptors) > 1 else explanation.parts[0])
    if arguments.check or arguments.refund or arguments.limit:
        for line in _counted(arguments, rules, descriptors):
            print(line)
    return OK if any(part.rules for part in explanation.parts) else DENIED


def _counted(arguments: argparse.Namespace, rules: RuleSet, descriptors: Sequence[Sequence[Entry]]) -> Iterator[str]:
    """Say what a request that asks in this manner does to which windows."""
    from ratelimit_svc.limiter.plans import Planner
    from ratelimit_svc.model import Descriptor, Limit, Request
    from ratelimit_svc.rules.words import in_words

    hits = 0 if arguments.check else None
    limit = Limit(*arguments.limit) if arguments.limit else None
    asked = tuple(Descriptor(tuple(entries), hits, arguments.refund, limit) for entries in descriptors)
    plan = Planner(rules).plan(Request(arguments.domain, asked))
    yield "asked like this:" if plan.charges else "asked like this, nothing is counted"
    for charge in plan.charges:
        does = {Kind.POSITIVE: "counts its hits", Kind.CHECK: "is only looked at", Kind.REFUND: "is given hits back"}
        forbidden = charge.kind is Kind.REFUND and not charge.rule.refunds
        what = "stays as it is: its rule forbids refunds" if forbidden else does[charge.kind]
        yield f"   {charge.rule.id}: {in_words(charge.rule.limit)}; {what}; window {charge.key.decode()}"


def _schema(arguments: argparse.Namespace) -> int:
    from ratelimit_svc.rules import page, schema

    print(page.text() if arguments.page else schema.text(), end="")
    return OK


def _settings(_: argparse.Namespace) -> int:
    from ratelimit_svc.settings import page

    print(page.text(), end="")
    return OK


def _hit(arguments: argparse.Namespace) -> int:
    from ratelimit_svc.model import Code
    from ratelimit_svc.wire.calls import CallError
    from ratelimit_svc.wire.client import Client, ClientTls, in_words, request

    tls = ClientTls(arguments.tls_ca, arguments.tls_cert, arguments.tls_key, arguments.tls_name)
    if bool(tls.cert) != bool(tls.key):
        print("ratelimit-svc: --tls-cert and --tls-key go together", file=sys.stderr)
        return FAILED
    try:
        message = request(
            arguments.domain,
            _descriptors(arguments.entries),
            hits=arguments.hits,
            check=arguments.check,
            refund=arguments.refund,
            limit=arguments.limit,
        )
    except argparse.ArgumentTypeError as error:
        print(f"ratelimit-svc: {error}", file=sys.stderr)
        return FAILED
    status = OK
    with Client(
        arguments.address, timeout_s=arguments.timeout, tls=tls if arguments.tls or any(tls) else None
    ) as client:
        for _ in range(arguments.times):
            try:
                response = client.ask(message)
            except CallError as error:
                print(f"ratelimit-svc: {arguments.address}: {error}", file=sys.stderr)
                return FAILED
            print(*in_words(response), sep="\n")
            if int(response.overall_code) == Code.OVER_LIMIT:
                status = DENIED
    return status


def _descriptors(words: Sequence[str]) -> list[list[Entry]]:
    """Return the entries of each descriptor: a lone + begins the next one."""
    descriptors: list[list[Entry]] = [[]]
    for word in words:
        if word == "+":
            descriptors.append([])
        else:
            descriptors[-1].append(_entry(word))
    return descriptors
