"""The operator's pages, ``/ui``: rendered here, with htmx for what changes while a page is open.

How a page is added, in three steps:

1. A module here with a router and a function for each path. ``visit`` says which role the visitor needs, checks that a request
   which is no ``GET`` comes from a form of the visitor's own session, and provides the ``Page`` (both are in ``page.py``)::

       router = PageRouter()

       @router.get("/schedules")
       async def list_schedules(page: Annotated[Page, visit(Role.READ)], q: str = "") -> Response:
           async with page.context.transaction() as session:
               found = await page_schedules(session, ...)
           return await page.render("schedules.html", found=found)

       @router.post("/schedules/{schedule_id}/delete")
       async def delete(page: Annotated[Page, visit(Role.OPERATE)], schedule_id: UUID) -> Response:
           form = await page.form()
           ...                                # raises the engine's errors; they become words in the form, or a page
           return page.go("/schedules")       # show the list again

2. A template in ``templates`` that extends ``base.html`` and fills the blocks ``title`` and ``main``. There
   ``href('/schedules', q=q)`` makes a link, ``page.may('operate')`` asks for a role, ``value|when`` writes a time,
   ``value|as_json`` JSON, and ``macros.html`` has ``badge(status)``, ``pager(…)`` and, for all that changes something,
   ``form(action, button)``, which holds the token. Values are escaped; what people or systems have written stands inside an
   element with ``hx-disable``. No ``style=``, ``on…=``, ``hx-on``, ``js:`` or inline script: the policy of the pages
   forbids them, and a test looks for them.

3. The router in ``ROUTERS`` of ``app.py``, and, for a page of its own, the entry in ``NAVIGATION`` of ``page.py``. The tests in
   ``tests/integration/test_ui_pages.py`` then visit it: name its address in ``PAGES``.

A form of ``macros.html`` is posted by htmx, or plainly where there are no scripts. A refusal (status 422) appears above its
fields, and what was typed stays; what succeeds answers ``page.go(…)``. A filter form has ``method="get"``, so that its values
are the address, and ``data-at-once`` if every change is to be sent.
"""
