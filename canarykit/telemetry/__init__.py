"""Where counts come from: one file for each source."""
