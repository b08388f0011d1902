"""Where users' data lies: NAS volumes, and checks of obs:// and nas:// paths."""
