"""Images of this host: fetched, checked, kept, unpacked.

`images` is the door: what the rest of the agent calls. Behind it, in the order in which a pull flows: `reference` (what
the user named) → the room `agent.registry` or `peer` (where bytes come from) → `manifest`, `document`, `platform` (what
they say) → `content` (blobs by digest, verified) → `layer` + `unpack` (in a fork of the `unpacker`'s process, reading
with `tar` what `compression` makes plain) → `snapshot` (unpacked layers, ready for overlayfs) → `catalog` (which images
and names there are), which only `holdings` changes. `pull` conducts that. `archive` brings images in from files;
`fresh` makes layers and images here, of what `pack` packs, for the `workbench` of builds; `change` edits configurations
by the lines of a Dockerfile, whose `words` it knows; `outgoing` is what others can have; `removal` decides what `rmi`
does, `gc` what may be deleted.
"""
