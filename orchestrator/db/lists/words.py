"""Read search texts, whatever a person writes. Pure; every text has a meaning, and none is a syntax error.

Words anywhere, in any order and case; ``word*`` for words that begin like this; ``"a phrase"``; ``column:value`` and
``column:(a|b)``; ``-`` before a term for rows that it does not fit. Punctuation separates words, in the text and in the rows; a
term of nothing but punctuation is looked for as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import InvalidQueryError

MAX_QUERY = 500
"""Characters of a search text."""

MAX_TERMS = 16
"""Terms of a search text; each costs a search of its own."""

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""What separates words, beside blanks; the function ``search_words`` of the database has the same."""

_TERM = re.compile(
    r"""
    (?<!\S)(?P<negated>-)?
    (?:(?P<column>[A-Za-z_]+):(?=[^\s:/*]))?
    (?:"(?P<phrase>[^"]*)"?|\((?P<group>[^()"]*)\)|(?P<word>\S+))
    """,
    re.VERBOSE,
)
_SEPARATORS = re.compile(rf"[\s\x00-\x1f{re.escape(PUNCTUATION)}]+")


@dataclass(frozen=True, slots=True)
class Text:
    """What a row must hold.

    Args:
        written: as a person wrote it, without quotes and ``*``.
        parts: its words in a row; none if it is punctuation only. The database ignores their case as it did in the rows: in
            one with the locale ``C`` only that of ASCII letters.
        is_prefix: whether the last word may go on.
    """

    written: str
    parts: tuple[str, ...]
    is_prefix: bool = False

    @property
    def tsquery(self) -> str:
        """The text as PostgreSQL's ``to_tsquery`` reads it; no part has a quote or a backslash."""
        quoted = [f"'{part}'" for part in self.parts]
        return " <-> ".join(quoted) + (":*" if self.is_prefix else "")

    def fits(self, word: str) -> bool:
        """Return whether a single word, such as a status, is meant."""
        written = self.written.lower()
        return bool(written) and (word.lower().startswith(written) if self.is_prefix else word.lower() == written)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition of a search text.

    Args:
        texts: alternatives.
        column: its name, as it was written, if the term is about one.
    """

    texts: tuple[Text, ...]
    column: str | None = None
    negated: bool = False

    def without_column(self) -> Term:
        """Return the term for a list that has no such column: the name is a word like any other."""
        texts = tuple(read_text(f"{self.column}:{one.written}{'*' if one.is_prefix else ''}") for one in self.texts)
        return Term(texts, None, self.negated)


def read_query(written: str) -> tuple[Term, ...]:
    """Return the terms of a search text.

    Raises:
        InvalidQueryError: it is too long.
    """
    if len(written) > MAX_QUERY:
        raise InvalidQueryError(f"the search text has {len(written)} characters; at most {MAX_QUERY} are accepted")
    terms = []
    for found in _TERM.finditer(written):
        if found["phrase"] is not None:
            alternatives = [found["phrase"]]
        elif found["group"] is not None:
            alternatives = found["group"].split("|")
        else:
            alternatives = [found["word"]]
        texts = tuple(read_text(one, quoted=found["phrase"] is not None) for one in alternatives if one.strip())
        if texts:
            terms.append(Term(texts, found["column"], found["negated"] is not None))
    if len(terms) > MAX_TERMS:
        raise InvalidQueryError(f"the search text has {len(terms)} terms; at most {MAX_TERMS} are accepted")
    return tuple(terms)


def read_text(written: str, *, quoted: bool = False) -> Text:
    """Return what is looked for; a ``*`` at the end means words that begin like this, unless the text was quoted."""
    text = written.strip()
    is_prefix = not quoted and len(text) > 1 and text.endswith("*")
    if is_prefix:
        text = text.rstrip("*") or text
    parts = tuple(part for part in _SEPARATORS.split(text) if any(character.isalnum() for character in part))
    return Text(text, parts, is_prefix and bool(parts))
