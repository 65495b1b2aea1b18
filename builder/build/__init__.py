"""From a profile to its environment: the script is run, and its result repaired, rebuilt, made for another machine."""
