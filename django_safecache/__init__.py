"""A memcached cache backend for Django that fails well and tells why.

PYTEST_DONT_REWRITE: there is a pytest plugin in here, but no assertion of a test; and
pytest would warn where this package is imported before pytest is.
"""
