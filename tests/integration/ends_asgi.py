from django.core.asgi import get_asgi_application

from django_safecache.asgi import storing_at_shutdown

application = storing_at_shutdown(get_asgi_application())
