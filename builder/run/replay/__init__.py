"""`drydock replay`: a trainer run twice, and what it printed and saved compared."""
