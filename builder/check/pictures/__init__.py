"""Answers as pictures: on a terminal in characters, and as SVG files."""
