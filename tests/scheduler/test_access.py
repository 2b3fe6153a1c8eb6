"""Who may read the secure port: front proxies, client certificates, tokens, and what the reviews say."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from bowsprit.apiserver.access import Connection
from bowsprit.client.errors import ConnectionFailed
from bowsprit.machinery.errors import forbidden
from bowsprit.machinery.names import GroupResource
from bowsprit.pki.authority import Authority
from bowsprit.scheduler.driver.access import CONFIG_MAPS, Access, AccessOptions, LookupFailed


class Cluster:
    """Answers reviews and the ConfigMap; counts what it is asked."""

    def __init__(self, data=None):
        self.data, self.asked, self.down = data, [], False

    async def get(self, gvr, name, *, namespace):
        assert (gvr, name, namespace) == (CONFIG_MAPS, "extension-apiserver-authentication", "kube-system")
        if self.data is None:
            raise forbidden(GroupResource("", "configmaps"), name, "no")
        return {"data": self.data}

    async def create(self, gvr, obj):
        self.asked.append(obj["spec"])
        if self.down:
            raise ConnectionFailed("down")
        if obj["kind"] == "TokenReview":
            good = obj["spec"]["token"] == "good"
            user = {"username": "ann", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}
            return {"status": {"authenticated": True, "user": user} if good else {"authenticated": False}}
        return {"status": {"allowed": obj["spec"]["user"] in ("ann", "joe")}}

    async def close(self):
        self.asked.append("closed")


def der(pair):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pair.cert_pem).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def authorities():
    return Authority.create("clients"), Authority.create("proxies")


def config_map(authorities):
    clients, proxies = authorities
    return {
        "client-ca-file": clients.ca_pem.decode(),
        "requestheader-client-ca-file": proxies.ca_pem.decode(),
        "requestheader-allowed-names": json.dumps(["front"]),
        "requestheader-username-headers": json.dumps(["X-Remote-User"]),
        "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
        "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
    }


async def who(access, pair=None, **headers):
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return await access.who(named, Connection(der(pair) if pair else None))


async def test_authorities_come_from_the_cluster(authorities):
    clients, proxies = authorities
    access = Access(AccessOptions(), Cluster(config_map(authorities)))
    await access.start()
    admin = clients.issue_client("root", ["system:masters"])
    found = await who(access, admin)
    assert (found.name, found.groups) == ("root", ("system:masters", "system:authenticated"))
    assert await access.may(found, "get", "/metrics")
    found = await who(access, proxies.issue_client("front"), X_Remote_User="joe", X_Remote_Group="ops")
    assert (found.name, found.groups) == ("joe", ("ops", "system:authenticated"))
    # a proxy of another name, headers without a certificate, a certificate of somebody else's: nobody
    assert (await who(access, proxies.issue_client("other"), X_Remote_User="joe")).name == "system:anonymous"
    assert (await who(access, None, X_Remote_User="joe")).name == "system:anonymous"
    assert (
        await who(access, Authority.create("x").issue_client("root", ["system:masters"]))
    ).name == "system:anonymous"


async def test_flags_name_the_authorities(authorities, tmp_path):
    clients, proxies = authorities
    (tmp_path / "clients.crt").write_bytes(clients.ca_pem)
    (tmp_path / "proxies.crt").write_bytes(proxies.ca_pem)
    options = AccessOptions(tmp_path / "clients.crt", tmp_path / "proxies.crt")
    access = Access(options, Cluster())
    await access.start()  # nothing is left to look up
    assert (await who(access, clients.issue_client("root"))).name == "root"
    assert (await who(access, proxies.issue_client("any"), X_Remote_User="joe")).name == "joe"


async def test_a_lookup_that_fails_is_tolerated_unless_told_otherwise():
    await Access(AccessOptions(), Cluster()).start()
    await Access(AccessOptions(skip_lookup=True, tolerate_lookup_failure=False), Cluster()).start()
    with pytest.raises(LookupFailed, match="extension-apiserver-authentication cannot be read"):
        await Access(AccessOptions(tolerate_lookup_failure=False), Cluster()).start()


async def test_tokens_and_permissions_are_reviewed_by_their_own_clients_and_remembered():
    tokens, rights, own = Cluster(), Cluster(), Cluster()
    now = [0.0]
    options = AccessOptions(
        skip_lookup=True, authentication_client=lambda: tokens, authorization_client=lambda: rights, denied_ttl=3.0
    )
    access = Access(options, own, clock=lambda: now[0])
    for _ in range(2):
        ann = await who(access, Authorization="Bearer good")
        assert (ann.name, ann.uid, ann.extra) == ("ann", "7", {"k": ("v",)})
        assert await who(access, Authorization="Bearer bad") is None
        assert await access.may(ann, "get", "/metrics")
        assert not await access.may(await who(access), "get", "/metrics")
    assert len(tokens.asked) == 2
    assert len(rights.asked) == 2
    assert rights.asked[0] == {
        "user": "ann", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }  # fmt: skip
    now[0] = 4.0
    assert not await access.may(await who(access), "get", "/metrics")
    assert len(rights.asked) == 3
    tokens.down = True
    assert await who(access, Authorization="Bearer new") is None
    await access.close()
    assert tokens.asked[-1] == rights.asked[-1] == "closed"
    assert own.asked == []
