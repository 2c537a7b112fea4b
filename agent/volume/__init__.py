"""Data that outlives containers: `volumes.Volumes` is what others call, `driver` the port of a kind of volume,
`local` the one kind there is."""
