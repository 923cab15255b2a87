"""Load: rule files → one compiled RuleSet, or every finding in them at once.

Rule 1: the rule language is `tables`; this file puts files together to domains, and domains to a rule set.
Rule 2: all files are read to their end, and nothing half right is ever returned: `RulesError` has all errors.
Rule 3: nothing here touches the disk: the same bytes give the same rules.
Rule 4: a file that the reference implementation loads is loaded, and what does not do there what it seems to do is a
        warning. Where rules are read strictly, and in each file that uses a key of ours, it is an error.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ratelimit_svc.errors import Finding, RulesError
from ratelimit_svc.model import Algorithm, Rule
from ratelimit_svc.rules import nodes
from ratelimit_svc.rules.compose import compose
from ratelimit_svc.rules.descriptors import Child, Path, Reading, descriptors
from ratelimit_svc.rules.fields import Fields
from ratelimit_svc.rules.files import RuleFile, read
from ratelimit_svc.rules.kinds import similar
from ratelimit_svc.rules.match import ANY, Domain, Glob, Node, RuleSet
from ratelimit_svc.rules.nodes import At, Document, short, shown
from ratelimit_svc.rules.tables import ROOT

__all__ = ["RuleFile", "load", "read"]


@dataclass(slots=True)
class _Part:
    """What the files of one domain have said so far."""

    place: str
    """Where the domain was named first: file and line."""
    tenant: str | None
    children: list[Child] = field(default_factory=list)
    reading: Reading | None = None
    tenants: list[Fields] = field(default_factory=list)
    """The roots that name the tenant."""


class _Loading:
    """All files while they are read."""

    def __init__(self, *, strict: bool, merge_domains: bool, algorithm: Algorithm, quota_mode: bool) -> None:
        self._strict = strict
        self._merge_domains = merge_domains
        self._algorithm = algorithm
        self._quota_mode = quota_mode
        self._parts: dict[str, _Part] = {}
        self._rules: list[Rule] = []
        self._errors: list[Finding] = []
        self._warnings: list[Finding] = []
        self._documents: list[Document] = []
        self._strays: list[Finding] = []

    def take(self, file: RuleFile) -> None:
        """Read one file to its end."""
        document = Document(file.name, strict=self._strict)
        is_rules = not file.stray
        with suppress(nodes.GaveUp):
            root = compose(document, file)
            is_rules = is_rules or _names_a_domain(root)
            if is_rules:
                self._domain(document, root)
        if not is_rules:
            self._strays.append(Finding(file.name, 0, "", _STRAY))
            return
        self._documents.append(document)

    def end(self, *, files: int) -> RuleSet:
        """Compile what was read from so many files.

        Raises:
            RulesError: With everything that is wrong.
        """
        for name, part in self._parts.items():
            _note_ghosts(name, part)
        for document in self._documents:
            self._errors.extend(document.errors())
            self._warnings.extend(document.warnings())
        strays_are_all = files > 0 and len(self._strays) == files
        if self._strict or strays_are_all:
            self._errors.extend(self._strays)
        if self._errors:
            raise RulesError(self._errors)
        domains = {name: Domain(name, part.tenant, Node.of(part.children)) for name, part in self._parts.items()}
        warnings = (*self._warnings, *self._strays)
        return RuleSet(domains, tuple(self._rules), warnings, self._algorithm, self._quota_mode)

    def _domain(self, document: Document, root: nodes.YamlNode | None) -> None:
        if root is None:
            document.give_up(0, "", "holds no rules; write at least `domain: name`")
        if not isinstance(root, nodes.Mapping):
            message = f"{shown(root)} stands where the rules are expected; write `domain: name` first"
            document.give_up(root.line, "", message)
        fields = Fields.read(document, At(root, ""), ROOT)
        fields.note_mistakes()
        part = self._part(document, fields)
        if "tenant" in fields.values:
            part.tenants.append(fields)
        reading = Reading(document, self._algorithm, self._rules, quota_mode=self._quota_mode)
        if part.reading is not None:  # another file of the domain
            reading = replace(part.reading, document=document)
        part.reading = reading
        part.children.extend(descriptors(reading, fields, Path(fields.values.get("domain", ""))))

    def _part(self, document: Document, fields: Fields) -> _Part:
        """Return the domain that the file's descriptors belong to."""
        name, tenant = fields.values.get("domain", ""), fields.values.get("tenant")
        if "domain" not in fields.places:
            fields.wrong("domain", "`domain` is missing; write the domain that Envoy asks with")
        if not name:
            return _Part("", tenant)
        place = f"{document.file}:{fields.places['domain'].node.line}"
        part = self._parts.setdefault(name, _Part(place, tenant))
        if part.place == place:
            return part
        if not self._merge_domains:
            message = (
                f"{short(name)} is the domain of {part.place} already; put the descriptors of a domain into one file"
            )
            fields.wrong("domain", f"{message}, or set MERGE_DOMAIN_CONFIG")
            return _Part(place, tenant)
        if part.tenant != tenant:
            said = "no tenant" if part.tenant is None else f"the tenant {short(part.tenant)}"
            fields.wrong("tenant", f"{short(name)} has {said} in {part.place}; write the same in all files of a domain")
        return part


def load(
    files: Iterable[RuleFile],
    *,
    strict: bool = False,
    merge_domains: bool = False,
    algorithm: Algorithm = Algorithm.SLIDING_WINDOW,
    quota_mode: bool = False,
) -> RuleSet:
    """Compile all files into one rule set.

    Args:
        files: as `read` returns them.
        strict: take warnings for errors in all files, not only in those that use a key of ours (STRICT).
        merge_domains: several files may describe one domain; they are put together in the order of their names
            (MERGE_DOMAIN_CONFIG).
        algorithm: what counts where no rule says how (DEFAULT_ALGORITHM).
        quota_mode: read each limit as if its rule said `quota_mode`, unless it is a shadow (QUOTA_MODE).

    Raises:
        RulesError: With everything that is wrong in all of them.
    """
    files = sorted(files, key=lambda file: file.name) if merge_domains else list(files)
    loading = _Loading(strict=strict, merge_domains=merge_domains, algorithm=algorithm, quota_mode=quota_mode)
    for file in files:
        loading.take(file)
    return loading.end(files=len(files))


def _note_ghosts(domain: str, part: _Part) -> None:
    """Note what a domain names and does not have; known once all its files are read."""
    reading = part.reading
    if reading is None:
        return
    for fields in part.tenants:
        tenant = fields.values["tenant"]
        if reading.keys and not any(
            key == tenant or (ANY in key and Glob.of(key).fits(tenant)) for key in reading.keys
        ):
            near = similar(tenant, reading.keys)
            fields.odd("tenant", f"{short(tenant)} is the key of no descriptor{near}: the domain is everybody's tenant")
    names = {rule.limit.name for rule in reading.rules if rule.limit is not None and rule.id.startswith(f"{domain}/")}
    for fields, name in reading.replaced:
        if name not in names:
            fields.odd(
                "name", f"no limit of this domain is named {short(name)}{similar(name, names)}: nothing is replaced"
            )


_STRAY = "not a rule file: ignored; move it away, or begin its name with a dot"


def _names_a_domain(root: nodes.YamlNode | None) -> bool:
    if not isinstance(root, nodes.Mapping):
        return False
    return any(isinstance(key, nodes.Scalar) and key.text == "domain" for key in root.items[::2])
