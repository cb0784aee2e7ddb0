"""What a person may ask of a list, and what the search text means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.db.lists.page import Page, known_total
from orchestrator.db.lists.request import MAX_ROWS, Filter, SortKey, Window, read_request
from orchestrator.db.lists.words import MAX_QUERY, Term, Text, read_query
from orchestrator.errors import InvalidQueryError


@pytest.mark.parametrize(
    ("written", "window"),
    [
        (None, Window(0, 100)),
        ("0,9", Window(0, 10)),
        ("10,10", Window(10, 1)),
        ("1000000,1000049", Window(1_000_000, 50)),
        ("0,9999999999", Window(0, MAX_ROWS)),
    ],
)
def test_a_range_includes_both_ends_and_is_cut_to_a_page(written: str | None, window: Window) -> None:
    assert read_request(rows=written).window == window


@pytest.mark.parametrize(
    "written",
    [
        "9,0",
        "0",
        "0,1,2",
        "a,b",
        "-1,5",
        "1_0,20",
        "0,99999999999999999999",
        "\u0660,\u0669",
        "2000000,2000009",
        "0,9\0",
        " 0,9",
    ],
)
def test_a_range_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(InvalidQueryError):
        read_request(rows=written)


def test_sort_and_filter_are_pairs_whose_names_may_be_in_camel_case() -> None:
    request = read_request(
        sort=["startedAt,desc,workflow_name,ASC", "status,asc"], filters=["lastStatus,failed|waiting", r"note,a\,b"]
    )

    assert request.sort == (SortKey("started_at", True), SortKey("workflow_name", False), SortKey("status", False))
    assert request.filters == (Filter("last_status", "failed|waiting"), Filter("note", "a,b"))


def test_a_sort_or_filter_that_is_no_pair_is_refused_with_an_example_of_its_own() -> None:
    with pytest.raises(InvalidQueryError, match="such as started_at,desc"):
        read_request(sort=["started_at"])
    with pytest.raises(InvalidQueryError, match="such as status,failed"):
        read_request(filters=["status"])


@pytest.mark.parametrize(
    "asked",
    [
        {"sort": ["id,asc,status"]},
        {"sort": ["id"]},
        {"sort": ["id,sideways"]},
        {"filters": ["status"]},
        {"filters": ["a,b,c"]},
        {"filters": ["a,b"] * 21},
        {"filters": ["note,\0"]},
        {"query": "a\0b"},
        {"query": "a" * (MAX_QUERY + 1)},
        {"query": "a " * 17},
        {"query": "a " * 10_000},
    ],
)
def test_what_is_not_written_as_it_must_be_is_refused(asked: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidQueryError):
        read_request(**asked)  # type: ignore[arg-type]


def text(written: str, *parts: str, is_prefix: bool = False) -> Text:
    return Text(written, parts, is_prefix)


@pytest.mark.parametrize(
    ("written", "terms"),
    [
        ("", []),
        ("  ", []),
        ("Node", [Term((text("Node", "Node"),))]),
        ("node ams*", [Term((text("node", "node"),)), Term((text("ams", "ams", is_prefix=True),))]),
        ("ams-1.example.org", [Term((text("ams-1.example.org", "ams", "1", "example", "org"),))]),
        ('"site 7"', [Term((text("site 7", "site", "7"),))]),
        ('"unclosed', [Term((text("unclosed", "unclosed"),))]),
        ('"a*"', [Term((text("a*", "a"),))]),
        ("-node", [Term((text("node", "node"),), None, True)]),
        ("a-b", [Term((text("a-b", "a", "b"),))]),
        ("status:active", [Term((text("active", "active"),), "status")]),
        ("-status:(a|b*)", [Term((text("a", "a"), text("b", "b", is_prefix=True)), "status", True)]),
        ('product:"Node 10"', [Term((text("Node 10", "Node", "10"),), "product")]),
        ("http://x", [Term((text("http://x", "http", "x"),))]),
        ("Some::Class", [Term((text("Some::Class", "Some", "Class"),))]),
        ("%", [Term((text("%"),))]),
        ("*", [Term((text("*"),))]),
        ("🚀", [Term((text("🚀"),))]),
        ("(", [Term((text("("),))]),
        ("()", []),
        ("-", [Term((text("-"),))]),
        ("a:*", [Term((text("a:", "a", is_prefix=True),))]),
        ("O'Brien\\", [Term((text("O'Brien\\", "O", "Brien"),))]),
    ],
)
def test_a_search_text_means(written: str, terms: list[Term]) -> None:
    found = list(read_query(written))

    assert found == terms


@given(st.text(max_size=60))
def test_any_search_text_has_a_meaning_or_is_refused(written: str) -> None:
    try:
        terms = read_query(written)
    except InvalidQueryError:
        return
    for term in terms:
        assert term.texts
        for one in (*term.texts, *(term.without_column().texts if term.column else ())):
            assert not set("'\\") & set("".join(one.parts))


@pytest.mark.parametrize(
    ("page", "header"),
    [
        (Page(["a"] * 10, 0, 1234), "processes 0-9/1234"),
        (Page(["a"] * 10, 20, None), "processes 20-29/*"),
        (Page([], 0, 0), "processes */0"),
        (Page([], 50, 7), "processes */7"),
    ],
)
def test_the_content_range_says_which_rows_of_how_many(page: Page[str], header: str) -> None:
    assert page.content_range("processes") == header


def test_the_last_page_shows_how_many_rows_there_are() -> None:
    assert known_total(Window(20, 10), 3) == 23
    assert known_total(Window(0, 10), 0) == 0
    assert known_total(Window(20, 10), 10) is None
    assert known_total(Window(20, 10), 0) is None
