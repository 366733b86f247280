"""`edgeloop store`: how the store stands, and how its tables are brought to this edgeloop's."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.screen import wide_console
from pipeline.database import StoreStatus, default_store, store_status, upgrade_store
from pipeline.schema import HEAD, Standing, too_new, too_old

READY, NOT_READY = 0, 1


def show_store(store: str | None, *, as_json: bool) -> int:
    """Say what the store holds and which schema it has; 1 where this edgeloop cannot use it as it is."""
    found = store_status(store or default_store())
    standing = found.schema.standing if found.schema is not None else Standing.EMPTY
    if as_json:
        said = {
            "schema_version": 1,
            "store": found.where,
            "standing": standing.value,
            "schema": found.schema.revision if found.schema is not None else None,
            "wanted_schema": HEAD,
            "rows": found.rows,
        }
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
    else:
        _show(found, standing)
    return NOT_READY if standing in {Standing.BEHIND, Standing.AHEAD} else READY


def bring_up_store(store: str | None) -> int:
    """Make the store's tables, or bring them to this edgeloop's; nothing is lost by it."""
    where = store or default_store()
    before = upgrade_store(where)
    shown = store_status(where).where
    done = {
        Standing.EMPTY: f"made, with schema {HEAD}",
        Standing.UNSTAMPED: f"known as schema {before.revision}, now {HEAD}",
        Standing.BEHIND: f"schema {before.revision} before, now {HEAD}",
        Standing.CURRENT: f"has schema {HEAD} already",
    }[before.standing]
    _say(f"{shown}: {done}")
    return READY


def _show(found: StoreStatus, standing: Standing) -> None:
    schema = found.schema
    if schema is None:
        _say(f"{found.where} is not there yet; the first run makes it, or `edgeloop store upgrade`")
        return
    if standing is Standing.BEHIND:
        _say(too_old(found.where, schema.revision))
        return
    if standing is Standing.AHEAD:
        _say(too_new(found.where, schema.revision))
        return
    _say(
        {
            Standing.EMPTY: f"{found.where} is empty; the first run makes its tables",
            Standing.UNSTAMPED: f"{found.where} is of before there were schemas; it is brought up when used",
            Standing.CURRENT: f"{found.where} has schema {HEAD}, which is this edgeloop's",
        }[standing]
    )
    if found.rows:
        table = Table("Table", "Rows")
        table.columns[1].justify = "right"
        for name, count in found.rows.items():
            table.add_row(name, str(count))
        wide_console().print(table)


def _say(text: str) -> None:
    Console(soft_wrap=True).print(escape(text), highlight=False)
