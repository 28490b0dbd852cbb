"""``python -m optly_celery.demo.stand_in``: the first name of `optly_celery.testing.stand_in`."""

from ..testing.stand_in import StandIn, main

__all__ = ["StandIn", "main"]

if __name__ == "__main__":
    main()
