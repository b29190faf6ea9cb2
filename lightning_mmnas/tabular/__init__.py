"""Tables of whole search spaces: every architecture trained, so that a search can be judged exactly."""
