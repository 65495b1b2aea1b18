"""How things are on this machine: profiles, environments, runs, the machine, the store. Read only."""
