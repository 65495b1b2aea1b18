"""The work of an author of profiles: start a project, import an environment, write patches and hooks."""
