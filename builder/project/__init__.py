"""The profiles of a project and of its sources: found, read, locked, rendered, evaluated."""
