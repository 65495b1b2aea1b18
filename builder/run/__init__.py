"""Uses of a built environment: its trainer, a shell, a service, a kernel, a link."""
