"""The servers that run the application: Granian and Gunicorn."""
