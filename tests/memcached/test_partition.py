from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from real_memcached import memcached_or_skip

PARTITIONED = Path(__file__).with_name("partitioned.py")


@pytest.fixture
def in_own_network():
    """The command that gives another one a network of its own; it takes rights."""
    memcached_or_skip()
    unshare = shutil.which("unshare")
    for command in ([unshare, "--net"], [unshare, "--net", "--map-root-user"]):
        if unshare and not subprocess.run([*command, "true"], check=False).returncode:
            return command
    if os.environ.get("CI"):
        pytest.fail("no network namespaces here")
    pytest.skip("no network namespaces here")


class TestPartition:
    def test_what_was_told_to_be_lost_does_not_arrive_afterwards(self, in_own_network):
        """The kernel would send it when the network is back, after newer writes."""
        done = subprocess.run(
            [*in_own_network, sys.executable, PARTITIONED],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
