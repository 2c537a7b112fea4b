"""The agent's RPC servicers, one file per noun: they translate between the wire and the room that does the work,
and hold no decision of their own. Errors are raised as `shoal.errors`; the server maps them."""
