"""The names by which operators start the service; what they start stands in `peerloan.web`."""
