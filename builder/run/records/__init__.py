"""Records of runs: what ran, with which code, arguments and settings, on which machine, and how it ended.

`identity` names them, `folder` keeps them and lists them, `begin` writes one as a run starts, `gather` completes it
from a process beside the trainer, `code` asks git, `caller` has what was exported, `summary` reads losses and samples,
`history` reads losses that transformers logs, `compare` finds what differs, `words` has it for people, `export` writes
it into a folder, `rerun` runs it again.
docs/decisions/0009-a-record-beside-each-run.md says why.
"""
