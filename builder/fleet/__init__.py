"""The same on many hosts: what OpenSSH reaches, by the user's own ssh_config, fanned out by ClusterShell."""
