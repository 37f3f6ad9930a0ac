"""A memcached cache backend for Django that fails well and tells why."""
