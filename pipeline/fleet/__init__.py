"""What was released, how it fared on every device since, and whether it got worse."""
