"""The day's mail: `contents` composes it, `rendering` words it, `delivery` sends it."""
