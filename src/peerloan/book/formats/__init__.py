"""The formats of a book's files, each read in parts: CSV, JSON lines, Parquet and Arrow."""
