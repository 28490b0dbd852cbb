"""``python -m optly_celery``: the same as ``optly-celery``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="optly-celery")
