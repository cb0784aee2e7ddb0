"""The prose rules that a program can check; CONTRIBUTING.md has all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.repository import files, modules, text, tree

CODE = ("orchestrator", "consumers", "migrations", "scripts", "examples")

NOUN_PHRASE = re.compile(
    r"(?:The|A|An|This|That|These|Its|Their|All|Every|Each|One|Whether|What|Which|Who|Whoever|Where|When|How|Nothing)\b"
)
"""How a docstring begins that names a thing instead of saying what the function does. Ruff's D401 sees verbs only."""

PRIVATE_WORDS = {
    "told": "logged, reported, notified",
    "somebody": "an operator, a caller, another process",
    "mend": "fix",
    "mended": "fixed",
    "mends": "fixes",
    "door": "entry point",
    "doors": "entry points",
    "burial": "dead-lettering",
    "heirs": "subclasses",
    "strays": "orphans",
    "spoilt": "corrupt, damaged",
    "judged": "decided, validated",
    "misfit": "mismatch",
    "in words": "as text, with the reason",
    "code of authors": "user code",
    "authors' code": "user code",
    "laid out flat": "flattened, as a plan",
    "defect of ours": "bug in the engine",
}
"""Words that only we would use → the field's terms."""

_PRIVATE = re.compile(rf"\b(?:{'|'.join(sorted(PRIVATE_WORDS, key=len, reverse=True))})\b", re.IGNORECASE)


def find_noun_phrases(module: ast.Module) -> Iterator[str]:
    """Yield the functions whose docstring does not begin with what they do. Properties are things, and may."""
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = {one.id for one in node.decorator_list if isinstance(one, ast.Name)}
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        if NOUN_PHRASE.match(first) and not decorators & {"property", "cached_property"}:
            yield f"line {node.lineno}: {node.name}: {first}"


def find_private_words(prose: str) -> Iterator[str]:
    """Yield the private words in a text, with their line and the field's term."""
    for number, line in enumerate(prose.splitlines(), 1):
        for found in _PRIVATE.finditer(line):
            yield f"line {number}: {found[0]!r}; write: {PRIVATE_WORDS[found[0].lower()]}"


@pytest.mark.parametrize("opening", ["The rows.", "Whether it is due.", "What a step returned.", "A queue's depth."])
def test_a_noun_phrase_is_found(opening: str) -> None:
    assert list(find_noun_phrases(ast.parse(f'def depth():\n    """{opening}"""')))


@pytest.mark.parametrize("source", ['def f():\n    """Return it."""', '@property\ndef f():\n    """The name."""'])
def test_a_verb_and_a_property_pass(source: str) -> None:
    assert not list(find_noun_phrases(ast.parse(source)))


def test_a_private_word_is_found_with_its_line() -> None:
    assert list(find_private_words("fine\nSomebody must look")) == [
        "line 2: 'Somebody'; write: an operator, a caller, another process"
    ]


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    assert [f"{name}, {one}" for name in modules(*CODE) for one in find_noun_phrases(tree(name))] == []


def test_prose_uses_the_terms_of_the_field() -> None:
    checked = [*modules(*CODE), *(name for name in files() if name.endswith(".md"))]
    assert [f"{name}, {one}" for name in checked for one in find_private_words(text(name))] == []
