"""Supervised runs: a trainer that is started again where its profile says so, with its log and what it used.

`start` asks for one, `watch` has the processes, `policy` decides, `streams` has what the trainer says, `journal` and
`sample` write down, `runs` is what the commands ask.
The process that watches for weeks imports nothing of pydantic, Jinja or rich.
"""
