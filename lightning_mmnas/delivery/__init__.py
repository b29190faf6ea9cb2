"""What a run leaves behind: a model that is loaded, applied to new data, and exported."""
