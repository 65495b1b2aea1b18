"""What an author of profiles does: start a project, import what is there, write patches and hooks."""
