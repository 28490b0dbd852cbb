"""For web servers: ``gunicorn wsgi:app``, ``flask --app wsgi run``."""

from shop import create_app

app = create_app()
