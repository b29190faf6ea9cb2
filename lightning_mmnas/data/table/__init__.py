"""A table of one's own as data set: CSV, JSON lines or Parquet."""
