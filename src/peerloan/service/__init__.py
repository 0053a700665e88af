"""The names by which operators start the service. The code is in `peerloan.web`."""
