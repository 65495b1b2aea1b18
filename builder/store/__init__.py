"""Where finished environments are: their folders, generations, roots, and what is deleted."""
