"""Patterns are Go's: its dialect, its words for mistakes, and time that no pattern can blow up."""

from __future__ import annotations

import pytest

from bowsprit.machinery.regex import RegexError, compile_pattern


def test_flags_may_stand_inside_a_group() -> None:
    pattern = compile_pattern("^((?i)sun|mon)day(?:((:(sun|mon)day)$)|$)")
    assert pattern.search("MONday:sunday")
    assert not pattern.search("monday:SUNday")


def test_a_dollar_means_the_very_end() -> None:
    assert not compile_pattern("^a$").search("a\n")


def test_classes_and_characters_beyond_ascii() -> None:
    assert compile_pattern(r"^[[:alpha:]]+\pL$").search("abé")


def test_a_pattern_that_backtracking_engines_choke_on() -> None:
    assert not compile_pattern("^(a|a)*$").search("a" * 5000 + "b")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("[a", "missing closing ]: `[a`"),
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        (r"\q", r"invalid escape sequence: `\q`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("\\", "trailing backslash at end of expression: ``"),
        ("[z-a]", "invalid character class range: `z-a`"),
    ],
)
def test_mistakes_are_told_in_gos_words(pattern: str, words: str) -> None:
    with pytest.raises(RegexError) as told:
        compile_pattern(pattern)
    assert str(told.value) == f"error parsing regexp: {words}"
