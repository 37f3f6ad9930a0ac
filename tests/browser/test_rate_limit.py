from __future__ import annotations

import threading

import pytest
from observed import Clock

from django_safecache.browser import rate_limit
from django_safecache.browser.rate_limit import RateLimit


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def taken(clock):
    """How many of `number` reports are taken."""
    limit = RateLimit(clock)

    def take(number=1, address="10.0.0.1", per_client=10, per_process=25):
        return sum(
            limit.take(address, per_client=per_client, per_process=per_process)
            for _ in range(number)
        )

    return take


class TestLimits:
    @pytest.mark.parametrize("rate", [1, 7, 10, 60, 999])
    def test_a_client_has_as_many_as_said(self, taken, rate):
        assert taken(2000, per_client=rate, per_process=10_000) == rate

    def test_after_a_minute_it_has_as_many_again(self, taken, clock):
        assert taken(20) == 10
        clock.now += 60
        assert taken(20) == 10

    def test_they_come_back_one_by_one(self, taken, clock):
        taken(20)
        clock.now += 12.1
        assert taken(20) == 2

    def test_each_client_has_its_own(self, taken):
        assert [taken(20, f"10.0.0.{host}") for host in range(2)] == [10, 10]

    def test_all_together_have_no_more_than_the_process(self, taken):
        assert sum(taken(20, f"10.0.0.{host}") for host in range(9)) == 25

    def test_what_is_refused_to_one_is_not_taken_from_all(self, taken):
        taken(1000, "10.0.0.1")
        assert taken(20, "10.0.0.2") == 10

    def test_a_client_with_a_network_is_one_client(self, taken):
        assert taken(10, "2001:db8::1") == 10
        assert taken(10, "2001:db8::ffff:1") == 0
        assert taken(10, "2001:db8:0:1::1") == 10

    def test_an_ipv6_site_has_as_many_as_four_clients(self, taken):
        networks = [f"2001:db8:0:{number:x}::1" for number in range(10)]
        each = [taken(20, network, per_process=1000) for network in networks]
        assert each == [10, 10, 10, 10, 0, 0, 0, 0, 0, 0]
        assert taken(20, "2001:db8:1::1", per_process=1000) == 10

    def test_what_is_refused_to_a_network_is_not_taken_from_its_site(self, taken):
        taken(1000, "2001:db8::1", per_process=1000)
        assert taken(20, "2001:db8:0:1::1", per_process=1000) == 10

    def test_an_ipv4_client_is_the_same_in_both_notations(self, taken):
        assert taken(10, "::ffff:10.0.0.1") == 10
        assert taken(10, "10.0.0.1") == 0
        assert taken(10, "::ffff:10.0.0.2") == 10

    @pytest.mark.parametrize("address", ["fe80::1%eth0", "no address", "10.0.0.1:80"])
    def test_any_text_is_an_address(self, taken, address):
        assert taken(20, address) == 10

    def test_without_an_address_the_limit_of_all_holds(self, taken):
        """Behind a proxy on a unix socket nobody is told from anybody."""
        assert taken(100, "") == 25


class TestBounds:
    def test_no_more_clients_are_remembered_than_said(self, clock, monkeypatch):
        monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 100)
        limit = RateLimit(clock)
        for number in range(1000):
            limit.take(f"client {number}", per_client=1, per_process=100_000)
        assert len(limit._full_at) == 100
        assert not limit.take("client 999", per_client=1, per_process=100_000)

    def test_addresses_are_not_kept(self, clock):
        limit = RateLimit(clock)
        limit.take("10.0.0.1", per_client=1, per_process=1)
        assert all(isinstance(client, int) for client in limit._full_at)

    def test_threads_share_one_limit(self, taken):
        got = []

        def work():
            got.append(taken(100, per_client=1000, per_process=123))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(got) == 123
