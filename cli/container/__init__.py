"""Commands on containers: `flags` and `request` make one, `foreground` stays with it, the rest are one verb or few."""
