"""Supervised runs: a trainer that is restarted as its profile says, with its log and samples of what it uses.

`start` requests one, `watch` has the processes, `policy` decides, `streams` has the output of the trainer, `journal`
and `sample` record, `runs` answers the commands.
The process that watches for weeks imports nothing of pydantic, Jinja or rich.
"""
