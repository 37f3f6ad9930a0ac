"""The database that the environment tells of, for settings of tests."""

from __future__ import annotations

import json
import os

ENVIRONMENT_NAME = "SAFECACHE_TEST_DATABASE"


def told_database() -> dict[str, object] | None:
    """An entry of Django's ``DATABASES``, or None if nothing is told.

    Where mysqlclient could not be compiled, PyMySQL takes its place.
    """
    if ENVIRONMENT_NAME not in os.environ:
        return None
    database = json.loads(os.environ[ENVIRONMENT_NAME])
    if database["ENGINE"].endswith("mysql"):
        try:
            import MySQLdb  # noqa: F401
        except ImportError:
            import pymysql

            pymysql.install_as_MySQLdb()
    return database
