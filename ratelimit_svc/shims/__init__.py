"""The reference implementation's programs, under their names: an image of this project stands in the place of one of theirs.

    ratelimit                is `ratelimit-svc serve`: settings come by environment variables alone
    ratelimit_client         asks a running service, as `ratelimit-svc hit` does
    ratelimit_config_check   says what is wrong with rule files, as `ratelimit-svc check --lenient` does

Flags (`go_flags` reads them), output and exit statuses are theirs, as far as a script would look at them. What differs:
docs/migration.md.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ratelimit_svc import cli
from ratelimit_svc.errors import RulesError
from ratelimit_svc.model import Entry
from ratelimit_svc.rules.load import load
from ratelimit_svc.shims.go_flags import Flag, FlagError, HelpAsked, parse, usage

OK, FAILED, MISUSED = 0, 1, 2
"""Exit statuses: it was answered, or all is well; it was not; wrong flags."""

ANSWER_WITHIN_S = 10.0
"""How long `ratelimit_client` waits for its answer."""

Given = Mapping[str, Sequence[str]]
"""Each flag's values."""


def ratelimit() -> None:
    """Run the service."""
    if arguments := sys.argv[1:]:
        print(
            f"ratelimit: takes no arguments, but got {' '.join(arguments)}. It is told by environment variables;"
            " `ratelimit-svc serve --help` names them, and has flags as well.",
            file=sys.stderr,
        )
        sys.exit(MISUSED)
    cli.main(["serve"])


def ratelimit_client() -> None:
    """Ask a running service once."""
    _run("ratelimit_client", CLIENT_FLAGS, _ask)


def ratelimit_config_check() -> None:
    """Read all rule files of a folder as the service would."""
    _run("ratelimit_config_check", CHECK_FLAGS, _check)


CLIENT_FLAGS: Mapping[str, Flag] = {
    "descriptors": Flag("a descriptor, as key=value,key=value,…; for more of them, give it again"),
    "dial_string": Flag("the service, as host:port", "localhost:8081"),
    "domain": Flag("whose rules are asked"),
    "grpc-cert-file": Flag("our certificate, a PEM file, for a service that asks for one"),
    "grpc-key-file": Flag("its private key, a PEM file"),
    "grpc-server-ca-file": Flag("the roots of the service's certificate, a PEM file"),
    "grpc-use-tls": Flag("ask over TLS", is_switch=True),
    "oltp-protocol": Flag("accepted: this client sends no traces"),
}
CHECK_FLAGS: Mapping[str, Flag] = {
    "config_dir": Flag("the folder of the rule files"),
    "merge_domain_configs": Flag("several files may describe one domain", is_switch=True),
}


def _run(program: str, flags: Mapping[str, Flag], work: Callable[[Given], int]) -> None:
    try:
        given = parse(flags, sys.argv[1:])
    except HelpAsked:
        print(usage(program, flags), file=sys.stderr)
        sys.exit(OK)
    except FlagError as error:
        print(error, usage(program, flags), sep="\n", file=sys.stderr)
        sys.exit(MISUSED)
    sys.exit(work(given))


def _ask(given: Given) -> int:
    from ratelimit_svc.wire.calls import CallError
    from ratelimit_svc.wire.client import Client, ClientTls, as_text, in_go_words, request

    def file(flag: str) -> Path | None:
        return Path(given[flag][-1]) if given[flag] and given[flag][-1] else None

    try:
        message = request(_last(given, "domain"), [_entries(text) for text in given["descriptors"]], hits=1)
    except FlagError as error:
        print(error, usage("ratelimit_client", CLIENT_FLAGS), sep="\n", file=sys.stderr)
        return MISUSED
    for name in CLIENT_FLAGS:
        print(f'Flag: --{name}="{" ".join(given[name])}"')
    tls = ClientTls(file("grpc-server-ca-file"), file("grpc-cert-file"), file("grpc-key-file"))
    try:
        with Client(
            _last(given, "dial_string"),
            timeout_s=ANSWER_WITHIN_S,
            tls=tls if _last(given, "grpc-use-tls") == "true" else None,
        ) as client:
            print(f"response: {as_text(client.ask(message))}")
    except CallError as error:
        print(f"request error: rpc error: code = {in_go_words(error.status)} desc = {error.text}")
        return FAILED
    except OSError as error:
        print(f"error connecting: {error}")
        return FAILED
    return OK


def _last(given: Given, flag: str) -> str:
    """Return the value that counts of a flag that may be given again."""
    return given[flag][-1] if given[flag] else ""


def _entries(text: str) -> list[Entry]:
    """Read a descriptor."""
    pairs = [pair.split("=") for pair in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise FlagError(f'invalid value "{text}" for flag -descriptors: invalid descriptor list')
    return [Entry(key, value) for key, value in pairs]


def _check(given: Given) -> int:
    folder = _last(given, "config_dir")
    print("checking rate limit configs...")
    print(f"loading config directory: {folder}")
    if not folder or not Path(folder).is_dir():
        print(f"error opening directory {folder}: open {folder}: no such directory")
        return FAILED
    try:
        files = cli.rule_files([Path(folder)])
        for file in files:
            print(f"opening config file: {file.name}")
        rules = load(files, merge_domains=_last(given, "merge_domain_configs") == "true")
    except RulesError as error:
        print(f"error loading rate limit configs: {error}")
        return FAILED
    for warning in rules.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("all rate limit configs ok")
    return OK
