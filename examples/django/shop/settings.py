"""Settings of the shop. What Optimizely needs stands first; the rest is any Django project's."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

HERE = Path(__file__).parent
HOME = Path(os.environ.get("SHOP_HOME", HERE.parent))

OPTIMIZELY = {
    # With an account of yours: "sdk_key": "…" instead.
    "datafile": HERE / "datafile.json",
    # A purchase that is rolled back sends no conversion.
    "on_commit": True,
}
CELERY_BROKER_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# A stand-in for Optimizely on this machine. Without this line events go to Optimizely.
COLLECTOR_URL = os.environ.get("COLLECTOR_URL", "http://127.0.0.1:8765/v1/events")
CELERY_OPTLY_URL_OVERRIDE = COLLECTOR_URL
CELERY_OPTLY_STRICT = True  # have it refuse what Optimizely would ignore in silence
CELERY_OPTLY_OUTBOX_DIR = HOME / "outbox"

INSTALLED_APPS = [
    "django.contrib.messages",
    "optly_celery.contrib.django",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "optly_celery.contrib.django.middleware.OptimizelyMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

SECRET_KEY = os.environ.get("SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "shop.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HOME / "shop.sqlite3",
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # The page asks every second what has arrived.
    "loggers": {"django.server": {"level": "WARNING"}},
}
