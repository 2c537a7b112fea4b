"""The warm path: a command that need not start Python and gRPC anew.

Most of what a user waits for is a client's own start. So the first command that speaks to a daemon leaves a process
behind that has everything imported (`server`); the next one (`client`) hands it the command line, the environment and
the terminal, and a fork of it does the work, as Mercurial's chg does. It is per user, per login and per installation,
ends after ten idle minutes, and nobody need know: whatever is unlike (rights, limits, locale, another version)
runs cold. SHOAL_WARM=0 turns it off.
"""
