"""One module a revision; `pipeline.schema` runs them."""
