"""The vocabulary: one file per noun, each a set of frozen values.

Every noun keeps apart what the user wants (`spec`), what is (`status`) and who it is (`meta`). Nothing here is
ever mutated: a change is `msgspec.structs.replace`. The same messages, field by field, stand in
`proto/shoal/v1/types.proto`; `shoal.codec` translates at the edges. Fields are only ever appended: the store
keeps them by position.
"""
