"""Plans built decision by decision: what sequential policies act in, many episodes at once."""
