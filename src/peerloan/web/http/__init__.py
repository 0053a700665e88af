"""HTTP on top of Flask: request bodies, query parameters, problem details."""
