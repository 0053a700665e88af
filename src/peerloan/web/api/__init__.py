"""The REST API: one module a resource, and the Open Inference Protocol."""
