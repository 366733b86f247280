"""A fleet of devices: who belongs to it, what is released to it, and whether anything got worse on it."""
