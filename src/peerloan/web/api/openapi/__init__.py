"""The OpenAPI document, one module for each part of the API."""
