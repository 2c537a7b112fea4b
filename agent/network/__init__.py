"""Network: what containers of this host reach each other, the outside and the cluster on."""
