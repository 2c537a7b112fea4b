"""Commands on builds: `build` and its many spellings, `builder prune`.

`image` is the command: `source` finds what `PATH | URL | -` means, `context` says which files it has, `upload` carries
the conversation with the agent, `progress` draws it, `output` says what becomes of the result, and `delivery` does it
where that is no image. `shell` looks at where a build failed.
"""
