"""The HTTPS service on a board. Needs the extra `agent` only to make a certificate."""
