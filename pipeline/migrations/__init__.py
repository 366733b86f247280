"""Revisions of the store's schema for alembic: `versions/` has one module each, in the order of their names.

A revision is never changed once it was released; what the tables are now is in `pipeline.store_tables`.
"""
