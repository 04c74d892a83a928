"""Formats and rules of other tools, for people who come from them."""
