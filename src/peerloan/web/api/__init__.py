"""The REST API, one module for each resource, and the Open Inference Protocol."""
