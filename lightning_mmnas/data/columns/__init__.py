"""Columns of a data set: one modality of all samples, read from files."""
