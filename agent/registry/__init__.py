"""Registries: what this host says to them, and how far it trusts them.

`rules` is what the operator allows (plain HTTP, mirrors, certificates); `auth` how a registry wants to be convinced;
`connection` proves who we are, follows redirects and waits where a registry asks for it; `answer` reads what comes
back and puts refusals in words; `repository` is one repository of the protocol, for pull and push, whose `upload`
sends a blob; `login` and `search` are the two things that need no repository.
"""
