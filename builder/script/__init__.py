"""From a profile and its lock to the text of one script. Pure."""
