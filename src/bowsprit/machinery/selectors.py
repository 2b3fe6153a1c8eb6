"""Label and field selectors: parsing, matching, printing.

Upstream: k8s.io/apimachinery/pkg/labels and pkg/fields, and metav1.LabelSelectorAsSelector. Errors are SelectorError with
upstream's texts, as clients see them in a 400.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bowsprit.machinery import fielderrors, goformat
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_qualified_name, is_valid_label_value

IN, NOT_IN = "in", "notin"
EQUALS, DOUBLE_EQUALS, NOT_EQUALS = "=", "==", "!="
EXISTS, DOES_NOT_EXIST = "exists", "!"
GREATER_THAN, LESS_THAN = "gt", "lt"

_BINARY_OPERATORS = (IN, NOT_IN, EQUALS, DOUBLE_EQUALS, NOT_EQUALS, GREATER_THAN, LESS_THAN)
_ALL_OPERATORS = (*_BINARY_OPERATORS, EXISTS, DOES_NOT_EXIST)
_SYMBOLS = {"!", "==", "=", "!=", "(", ")", ",", ">", "<"}
_TOKEN = re.compile(r"[^\s=!(),><]+|[=!(),><]+", re.ASCII)
_OBJECT_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": DOES_NOT_EXIST}
_CACHED_LENGTH = 512  # longer ones are rare, and would let clients fill the memory
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)


class SelectorError(ValueError):
    """A selector that cannot be understood."""


def _integer(text: str) -> int | None:
    number = int(text) if len(text) <= 20 and _INTEGER.fullmatch(text) else None
    return number if number is not None and -(2**63) <= number < 2**63 else None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `values` are sorted."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    @classmethod
    def new(cls, key: str, operator: str, values: Iterable[str], where: Path | None = None) -> Requirement:
        """A checked requirement; raises SelectorError with the aggregated field errors."""
        requirement = cls(key, operator, tuple(sorted(set(values))))
        errors = list(requirement._problems(where))
        if errors:
            raise SelectorError(fielderrors.aggregate(errors))
        return requirement

    def _problems(self, where: Path | None) -> Iterator[FieldError]:
        base = where or fielderrors.path()
        yield from key_problems(self.key, base.child("key"))
        count, at = len(self.values), base.child("values")
        if self.operator in (IN, NOT_IN):
            if not count:
                yield fielderrors.invalid(at, [], "for 'in', 'notin' operators, values set can't be empty")
        elif self.operator in (EQUALS, DOUBLE_EQUALS, NOT_EQUALS):
            if count != 1:
                yield fielderrors.invalid(at, list(self.values), "exact-match compatibility requires one single value")
        elif self.operator in (EXISTS, DOES_NOT_EXIST):
            if count:
                yield fielderrors.invalid(
                    at, list(self.values), "values set must be empty for exists and does not exist"
                )
        elif self.operator in (GREATER_THAN, LESS_THAN):
            if count != 1:
                yield fielderrors.invalid(
                    at, list(self.values), "for 'Gt', 'Lt' operators, exactly one value is required"
                )
            for index, value in enumerate(self.values):
                if _integer(value) is None:
                    yield fielderrors.invalid(
                        at.index(index), value, "for 'Gt', 'Lt' operators, the value must be an integer"
                    )
        else:
            yield fielderrors.not_supported(base.child("operator"), self.operator, _ALL_OPERATORS)
        for index, value in enumerate(self.values):
            messages = is_valid_label_value(value)
            if messages:
                yield fielderrors.invalid(at.index(index).key(self.key), value, "; ".join(messages))

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        operator = self.operator
        if operator in (IN, EQUALS, DOUBLE_EQUALS):
            return value is not None and value in self.values
        if operator in (NOT_IN, NOT_EQUALS):
            return value is None or value not in self.values
        if operator == EXISTS:
            return value is not None
        if operator == DOES_NOT_EXIST:
            return value is None
        number, limit = _integer(value or ""), _integer(self.values[0])
        if number is None or limit is None:
            return False
        return number > limit if operator == GREATER_THAN else number < limit

    def __str__(self) -> str:
        if self.operator == DOES_NOT_EXIST:
            return f"!{self.key}"
        if self.operator == EXISTS:
            return self.key
        if self.operator in (IN, NOT_IN):
            return f"{self.key} {self.operator} ({','.join(self.values)})"
        symbol = {GREATER_THAN: ">", LESS_THAN: "<"}.get(self.operator, self.operator)
        return f"{self.key}{symbol}{self.values[0]}"


def key_problems(key: str, where: Path | None) -> list[FieldError]:
    """What upstream's validateLabelKey says about a label key."""
    messages = is_qualified_name(key)
    return [fielderrors.invalid(where, key, "; ".join(messages))] if messages else []


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements together. The empty one matches everything; `nothing` matches no object."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Read `a=b,c in (d,e),!f,g>1`. Raises SelectorError."""
        return _parse_cached(text) if len(text) <= _CACHED_LENGTH else _LabelParser(text).selector()

    @classmethod
    def from_obj(cls, selector: Obj | None) -> LabelSelector:
        """A metav1.LabelSelector: null matches nothing, an empty one everything. Raises SelectorError."""
        if selector is None:
            return NOTHING
        requirements = [
            Requirement.new(key, EQUALS, (value,)) for key, value in (selector.get("matchLabels") or {}).items()
        ]
        for expression in selector.get("matchExpressions") or ():
            operator = expression.get("operator", "")
            if operator not in _OBJECT_OPERATORS:
                raise SelectorError(f"{goformat.quote(operator)} is not a valid label selector operator")
            requirements.append(
                Requirement.new(expression.get("key", ""), _OBJECT_OPERATORS[operator], expression.get("values") or ())
            )
        return cls(tuple(sorted(requirements, key=lambda requirement: requirement.key)))

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> LabelSelector:
        """Equality on every label of a set, unchecked (upstream SelectorFromSet)."""
        return cls(tuple(Requirement(key, EQUALS, (labels[key],)) for key in sorted(labels)))

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        return all(requirement.matches(labels) for requirement in self.requirements)

    def is_empty(self) -> bool:
        """Whether it selects everything."""
        return not self.nothing and not self.requirements

    def requires_exact(self, key: str) -> str | None:
        """The one value that the label must have, if the selector says so."""
        for requirement in self.requirements:
            if (
                requirement.key == key
                and len(requirement.values) == 1
                and requirement.operator in (IN, EQUALS, DOUBLE_EQUALS)
            ):
                return requirement.values[0]
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


@lru_cache(maxsize=1024)
def _parse_cached(text: str) -> LabelSelector:
    return _LabelParser(text).selector()


class _LabelParser:
    """Recursive descent as in upstream's labels.Parser: its order of checks decides which error is told."""

    def __init__(self, text: str):
        self._tokens = list(_tokens(text))
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    @staticmethod
    def _is_identifier(word: str) -> bool:
        return word != "" and word not in _SYMBOLS

    def selector(self) -> LabelSelector:
        requirements: list[Requirement] = []
        while True:
            word = self._peek()
            if word == "":
                break
            if not self._is_identifier(word) and word != "!":
                raise SelectorError(f"found '{word}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            word = self._next()
            if word == "":
                break
            if word != ",":
                raise SelectorError(f"found '{word}', expected: ',' or 'end of string'")
            after = self._peek()
            if not self._is_identifier(after) and after != "!":
                raise SelectorError(f"found '{after}', expected: identifier after ','")
        return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))

    def _requirement(self) -> Requirement:
        word = self._next()
        absent = word == "!"
        if absent:
            word = self._next()
        if not self._is_identifier(word):
            raise SelectorError(f"found '{word}', expected: identifier")
        problems = key_problems(word, None)
        if problems:
            raise SelectorError(str(problems[0]))
        if absent:
            return Requirement.new(word, DOES_NOT_EXIST, ())
        if self._peek() in ("", ","):
            return Requirement.new(word, EXISTS, ())
        operator = self._operator()
        values = self._values() if operator in (IN, NOT_IN) else self._exact_value()
        return Requirement.new(word, operator, values)

    def _operator(self) -> str:
        word = self._next()
        operator = {">": GREATER_THAN, "<": LESS_THAN}.get(word, word)
        if operator not in _BINARY_OPERATORS or word in (GREATER_THAN, LESS_THAN):
            raise SelectorError(f"found '{word}', expected: {', '.join(_BINARY_OPERATORS)}")
        return operator

    def _exact_value(self) -> list[str]:
        if self._peek() in ("", ","):
            return [""]
        word = self._next()
        if not self._is_identifier(word):
            raise SelectorError(f"found '{word}', expected: identifier")
        return [word]

    def _values(self) -> list[str]:
        word = self._next()
        if word != "(":
            raise SelectorError(f"found '{word}' expected: '('")
        word = self._peek()
        if word == ")":
            self._at += 1
            return [""]
        if not self._is_identifier(word) and word != ",":
            raise SelectorError(f"found '{word}', expected: ',', ')' or identifier")
        values = self._identifiers()
        if self._next() != ")":
            raise SelectorError(f"found '{word}', expected: ')'")
        return values

    def _identifiers(self) -> list[str]:
        values: list[str] = []
        while True:
            word = self._next()
            if self._is_identifier(word):
                values.append(word)
                after = self._peek()
                if after == ")":
                    return values
                if after != ",":
                    raise SelectorError(f"found '{after}', expected: ',' or ')'")
            elif word == ",":
                if not values:
                    values.append("")
                after = self._peek()
                if after == ")":
                    return [*values, ""]
                if after == ",":
                    self._at += 1
                    values.append("")
            else:
                raise SelectorError(f"found '{word}', expected: ',', or identifier")


def _tokens(text: str) -> Iterator[str]:
    for run in _TOKEN.findall(text):
        if run[0] not in "=!(),><":
            yield run
            continue
        while run:  # the longest known symbol first: `!=`, `==`
            length = 2 if run[:2] in _SYMBOLS else 1
            yield run[:length]
            run = run[length:]


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """`field=value` or, negated, `field!=value`."""

    field: str
    value: str
    negated: bool = False

    def matches(self, fields: Mapping[str, str]) -> bool:
        return (fields.get(self.field, "") == self.value) is not self.negated

    def __str__(self) -> str:
        return f"{self.field}{'!=' if self.negated else '='}{escape_field_value(self.value)}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All field requirements together; absent fields count as empty."""

    requirements: tuple[FieldRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Read `metadata.name=a,status.phase!=Running`. Raises SelectorError."""
        found = [_parse_term(text, term) for term in sorted(_split_terms(text)) if term]
        return cls(tuple(found))

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> FieldSelector:
        return cls(tuple(FieldRequirement(key, fields[key]) for key in sorted(fields)))

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all(requirement.matches(fields) for requirement in self.requirements)

    def is_empty(self) -> bool:
        return not self.requirements

    def fields(self) -> Sequence[str]:
        """The fields that are asked for."""
        return [requirement.field for requirement in self.requirements]

    def requires_exact(self, field: str) -> str | None:
        """The one value that the field must have, if the selector says so."""
        for requirement in self.requirements:
            if requirement.field == field and not requirement.negated:
                return requirement.value
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


def escape_field_value(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _split_terms(text: str) -> list[str]:
    terms, start, escaped = [], 0, False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(text[start:at])
            start = at + 1
    terms.append(text[start:])
    return terms


def _parse_term(selector: str, term: str) -> FieldRequirement:
    match = re.search("!=|==|=", term)
    if match is None:
        raise SelectorError(f"invalid selector: '{selector}'; can't understand '{term}'")
    value = _unescape_field_value(term[match.end() :])
    return FieldRequirement(term[: match.start()], value, negated=match.group() == "!=")


def _unescape_field_value(text: str) -> str:
    out: list[str] = []
    characters = iter(text)
    for char in characters:
        if char == "\\":
            escaped = next(characters, "")
            if not escaped or escaped not in "\\,=":
                raise SelectorError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            out.append(escaped)
        elif char in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(char)}")
        else:
            out.append(char)
    return "".join(out)
