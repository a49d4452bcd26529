"""Checks of a run: each is a row that says what was seen, what is allowed and what to do."""
