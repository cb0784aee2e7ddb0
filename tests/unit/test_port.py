"""``orchestrator port``: what it changes in an application for orchestrator-core, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from orchestrator.cli.codemod import port_files
from tests.unit.ported_texts import port_text, port_texts, rules


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from orchestrator.core.workflow import step\n", "from orchestrator.workflow import step\n"),
        ("from orchestrator import step\n", "from orchestrator.workflow import step\n"),
        (
            "from orchestrator.db import ProductTable, SubscriptionTable as Sub\n",
            "from orchestrator.db.tables import ProductRow as ProductTable, SubscriptionRow as Sub\n",
        ),
        (
            "from orchestrator.core.workflow import StepStatus, step  # both\n",
            "from orchestrator.types import StepStatus  # both\nfrom orchestrator.workflow import step\n",
        ),
        (
            "from orchestrator.core.workflow import (  # here\n    begin,\n    step,\n)\n",
            "from orchestrator.workflow import (  # here\n    begin,\n    step,\n)\n",
        ),
        (
            "from orchestrator.db import (\n    ProductTable,\n    SubscriptionTable as Sub,\n    gone,\n)\n",
            (
                "from orchestrator.db.tables import (\n    ProductRow as ProductTable,\n    SubscriptionRow as Sub,\n)\n"
                "from orchestrator.db import gone\n"
            ),
        ),
        ("import orchestrator.core.workflow as flow\n", "import orchestrator.workflow as flow\n"),
        (
            "def f():\n    from orchestrator.core.targets import Target\n",
            "def f():\n    from orchestrator.targets import Target\n",
        ),
        (
            "if True:\n\tfrom orchestrator.core.targets import Target\r\n",
            "if True:\n\tfrom orchestrator.targets import Target\r\n",
        ),
    ],
)
def test_imports_lead_to_where_the_names_are(before: str, after: str) -> None:
    assert port_text(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "from orchestrator.workflow import step\nx  =  [1 ,2]\n",
        "from orchestrator.db import no_such_name\n",
        "from .core import step\nfrom other.orchestrator.core import step\n",
        "import orchestrator.core.workflow\n",
        "# -*- coding: latin-1 -*-\nname = 'caf\xe9'\n",
        "",
        "x = 1",
        "def f(subscription):\n    return subscription.save(session)\n",
        "def f():\n    return HtmlTable.query('td')\n",
    ],
)
def test_what_needs_no_change_or_cannot_have_one_keeps_every_byte(text: str) -> None:
    assert port_text(text) == text


STEP = """\
    from orchestrator.core.db import db
    from orchestrator.core.workflow import step
    from products import Node, NodeInactive
    from sqlalchemy import select


    @step("Construct")
    def construct(product: str, node: str) -> dict:
        subscription = NodeInactive.from_product_id(
            product_id=product,
            customer_id="x",
        )

        def of(port):
            return Node.from_subscription(port)  # nested functions see the session of the outer one

        subscription.node = of(node).node
        subscription.save()
        return {"subscription": subscription, "count": len(db.session.scalars(select(1)).all())}
"""
PORTED_STEP = """\
    from orchestrator.workflow import step
    from products import Node, NodeInactive
    from sqlalchemy import select
    from sqlalchemy.orm import Session


    @step("Construct")
    def construct(session: Session, product: str, node: str) -> dict:
        subscription = NodeInactive.from_product_id(
            session,
            product_id=product,
            customer_id="x",
        )

        def of(port):
            return Node.from_subscription(session, port)  # nested functions see the session of the outer one

        subscription.node = of(node).node
        subscription.save(session)
        return {"subscription": subscription, "count": len(session.scalars(select(1)).all())}
"""


def test_a_function_that_uses_the_database_gets_the_session() -> None:
    assert port_text(STEP) == dedent(PORTED_STEP)


def test_the_session_reaches_functions_in_other_files_through_their_callers() -> None:
    ported = port_texts(
        workflows__shared="""\
            from orchestrator.db import ProductTable, db


            def products() -> list:
                return db.session.query(ProductTable).all()


            def selector(name: str = "x"):
                return products()


            def unrelated():
                return selector
        """,
        workflows__create="""\
            from orchestrator.forms import FormPage
            from workflows.shared import selector, unrelated
            from workflows import shared


            def form(product_name: str):
                class Page(FormPage):
                    one: selector()
                    two: shared.selector("y")

                yield Page
                return unrelated()
        """,
    )

    shared, create = (one.after.decode() for one in ported.values())
    assert "def products(session: Session) -> list:" in shared
    assert 'def selector(session: Session, name: str = "x"):\n    return products(session)' in shared
    assert "def unrelated():" in shared
    assert "def form(session: Session, product_name: str):" in create
    assert "one: selector(session)\n" in create
    assert 'two: shared.selector(session, "y")\n' in create
    assert "return unrelated()" in create


def test_a_function_is_found_through_a_package_that_only_imports_it() -> None:
    files = {
        "queries/__init__.py": b"from queries.nodes import nodes\n",
        "queries/nodes.py": b"from orchestrator.db import db\n\n\ndef nodes():\n    return db.session.scalars(1)\n",
        "forms.py": b"from queries import nodes\n\n\ndef form():\n    return nodes()\n",
    }

    *_, form = port_files({Path("project", name): text for name, text in files.items()})

    assert b"return nodes(session)" in form.after


def test_porting_twice_changes_nothing_more() -> None:
    once = port_text(STEP)
    assert port_text(once) == once


def test_a_function_that_is_passed_on_is_bound_to_the_session() -> None:
    shared = """\
        from orchestrator.db import db


        def free(vlan, info=None, port="x"):
            return db.session.scalar(vlan)


        def harmless(vlan):
            return vlan
    """
    ported = port_texts(
        shared=shared,
        forms="""\
            from pydantic import AfterValidator
            from functools import partial
            from shared import free, harmless


            def form():
                return [AfterValidator(free), AfterValidator(partial(free, port="a")), AfterValidator(harmless), partial(free)]
        """,
        others="from shared import free\n\n\ndef form():\n    return list(map(free, [1]))\n",
    )

    assert (
        'return [AfterValidator(partial(free, session)), AfterValidator(partial(free, session, port="a")),'
        " AfterValidator(harmless), partial(free, session)]"
    ) in ported["forms"].after.decode()
    assert ported["others"].after.decode() == (
        "from functools import partial\nfrom sqlalchemy.orm import Session\nfrom shared import free\n\n\n"
        "def form(session: Session):\n    return list(map(partial(free, session), [1]))\n"
    )
    again = port_files({one.path: one.after for one in ported.values()})
    assert [one.path for one in again if one.after != one.before] == []


def test_functions_whose_arguments_the_engine_names_are_passed_on_as_they_are() -> None:
    text = """\
        @step("Act")
        def act(session: Session, port: str):
            return Port.from_subscription(session, port)


        def form(session: Session):
            return Port.from_subscription(session, 1)


        waiting = callback_step("Wait", action_step=act, validate_step=act)


        @create_workflow("Create", form)
        def create():
            return begin >> lso_interaction(act)


        @modify_workflow("Modify", initial_input_form=form)
        def modify():
            return begin >> waiting
    """
    assert port_text(text) == dedent(text)
    assert rules(text) == []


def test_what_a_table_was_asked_for_the_session_is_asked_for_and_reaches_the_callers() -> None:
    text = """\
        from orchestrator.db import SubscriptionTable


        def nodes(status):
            return SubscriptionTable.query.filter(SubscriptionTable.status == status).all()


        def selector():
            return nodes("active")
    """

    assert port_text(text) == dedent("""\
        from orchestrator.db.tables import SubscriptionRow as SubscriptionTable
        from sqlalchemy.orm import Session


        def nodes(session: Session, status):
            return session.query(SubscriptionTable).filter(SubscriptionTable.status == status).all()


        def selector(session: Session):
            return nodes(session, "active")
    """)


def test_who_calls_what_must_be_replaced_with_the_sessions_help_has_the_session_for_it() -> None:
    text = """\
        from orchestrator.services import subscriptions


        def name_of(subscription_id):
            return subscriptions.get_subscription(subscription_id).description


        def check(subscription_id):
            return name_of(subscription_id)
    """

    assert port_text(text) == dedent("""\
        from orchestrator.services import subscriptions
        from sqlalchemy.orm import Session


        def name_of(session: Session, subscription_id):
            return subscriptions.get_subscription(subscription_id).description


        def check(session: Session, subscription_id):
            return name_of(session, subscription_id)
    """)
    assert port_text(port_text(text)) == port_text(text)


def test_a_function_that_is_bound_with_one_argument_a_line_gets_the_session_on_a_line_of_its_own() -> None:
    text = """\
        def check(x, y):
            return A.from_db(x)


        def form():
            return partial(
                check,
                y=1,
            )
    """

    ported = port_text("from functools import partial\n\n\n" + dedent(text))

    assert "partial(\n        check,\n        session,\n        y=1,\n    )" in ported


def test_the_import_of_the_global_session_goes_and_what_stands_beside_it_keeps_its_lines() -> None:
    text = """\
        from orchestrator.db import (
            gone,
            db,
        )


        def f():
            return db.session.execute(gone)
    """

    assert port_text(text).startswith("from orchestrator.db import (\n    gone,\n)\n")


@pytest.mark.parametrize(
    "use",
    [
        "def f(node):\n    return [g(node), node(1)]\n",
        "def f():\n    for node, _ in pairs:\n        g(node)\n",
        "def f():\n    node: int = 1\n    return g(node)\n",
        "def f():\n    with x as node:\n        return g(node)\n",
        "def f():\n    return [g(node) for node in nodes]\n",
        "def f():\n    return (node := h()) and g(node)\n",
    ],
)
@pytest.mark.parametrize("where", ["def node(session: Session, x):\n    return A.from_db(session, x)\n", None])
def test_a_variable_that_is_called_like_a_function_that_needs_the_session_is_left_alone(
    use: str, where: str | None
) -> None:
    head = where or "from project.selectors import node\n"
    text = f"from sqlalchemy.orm import Session\n\n\n{head}\n\n{use}"
    selectors = "def node(x):\n    return A.from_db(x)\n"

    assert port_texts(module=text, selectors=selectors)["module"].after.decode() == text
