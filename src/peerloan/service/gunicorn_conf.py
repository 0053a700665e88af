"""Settings of Gunicorn, under the name that operators use in their commands.

gunicorn -c python:peerloan.service.gunicorn_conf 'peerloan.service.wsgi:application()'
"""

from peerloan.web.server.gunicorn_conf import (
    bind,
    graceful_timeout,
    keepalive,
    loglevel,
    on_starting,
    post_worker_init,
    pre_fork,
    proc_name,
    threads,
    timeout,
    worker_class,
    workers,
)

__all__ = [
    "bind",
    "graceful_timeout",
    "keepalive",
    "loglevel",
    "on_starting",
    "post_worker_init",
    "pre_fork",
    "proc_name",
    "threads",
    "timeout",
    "worker_class",
    "workers",
]
