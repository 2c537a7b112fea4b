"""The command line: parse, call, render.

`app` runs it; `registry` is the table of all commands; each noun has a file (or a package, where it has many
verbs) that speaks RPC through `client`. `parse/` turns text into wire messages, `output/` draws tables, templates
and progress, `document/` holds what `inspect` prints. Nothing here imports a daemon, and nothing is imported
before it is needed: the time a client takes to start is part of every command.
"""
