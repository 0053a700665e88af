"""Readers of the file formats, each part by part: CSV, JSON lines, Parquet and Arrow."""
