"""S3 of Ceph's RADOS gateway, which checks signatures, evaluates conditions of policies and lets tokens expire.

It has no archived objects; these are tested only on moto (tests/unit/store/test_failures.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import boto3
import fsspec
import pytest
from botocore.exceptions import ClientError

from featray.config import InputConfig
from featray.errors import AccessDenied, LeaseError
from featray.extract.plan import open_source
from featray.sources.listing import list_videos
from featray.store.exclusive import age_seconds, create_bytes, enforces
from featray.store.location import locate
from featray.store.storage import delete, list_files, list_versions, read_bytes, upload, write_bytes
from featray.tables import lease as leases
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.tables.query import connect, run_sql
from featray.upkeep.verify import verify
from tests.fixtures import s3
from tests.fixtures.runs import make_config, run_here
from tests.infra.rados_gateway import Gateway, behind, gateway, install

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.infra,
    pytest.mark.skipif(
        os.environ.get("FEATRAY_INFRA") != "1",
        reason="starts Ceph, whose Debian packages it installs as root: set FEATRAY_INFRA=1",
    ),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def ceph() -> Iterator[Gateway]:
    install()
    folder = Path(tempfile.mkdtemp(prefix="fr-"))  # it contains sockets, whose paths must be short
    try:
        with gateway(folder) as here:
            yield here
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def options(ceph):
    return ceph.options


def client(options, name="s3", **more):
    keys = {"aws_access_key_id": options["key"], "aws_secret_access_key": options["secret"]}
    return boto3.client(name, region_name="us-east-1", **{"endpoint_url": options["endpoint_url"], **keys, **more})


def config_of(options, out, uris, **sections):
    given = {"uris": uris, "storage_options": options}
    output = {"uri": out, "storage_options": options}
    return make_config([], out, input=given, output=output, decode={"sample": {"every": 118}}, **sections)


@pytest.fixture(scope="module")
def videos(options, clips):
    """Return a store with videos in raw/, and one in private/."""
    store = fsspec.filesystem("s3", **options)
    for bucket in ("pool", "tables", "old"):
        store.mkdir(bucket)
    for key in ("raw/oslo/face.mp4", "raw/rome/face.mp4", "private/face.mp4"):
        store.put_file(str(clips / "face.mp4"), f"pool/{key}")
    client(options).put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    return store


def test_two_runs_verify_and_query(options, videos):
    config = config_of(options, "s3://tables/whole", ["s3://pool/raw/**/*.mp4"])
    assert run_here(config).videos == {"ok": 2, "partial": 0, "failed": 0}
    assert run_here(config).status == "nothing_to_do"
    output = open_output("s3://tables/whole", options)
    assert not verify(output).problems
    rows = run_sql(connect(output), "SELECT count(*) AS n FROM faces").read_all().to_pylist()
    assert rows == [{"n": 8}]


def at_once(place, count=8):
    """Return the writers, out of `count` concurrent ones, that created an object, and the writer whose data it has."""
    with ThreadPoolExecutor(count) as pool:
        won = list(pool.map(lambda one: create_bytes(place, str(one).encode()), range(count)))
    return [one for one, created in enumerate(won) if created], int(read_bytes(place))


def test_one_of_many_creates_an_object(options, videos):
    for number in range(10):
        won, there = at_once(locate(f"s3://tables/race/{number}", options))
        assert won == [there]
    assert not create_bytes(locate("s3://tables/race/0", options), b"x")
    assert 0 <= age_seconds(locate("s3://tables/race/0", options)) < 60


def test_a_versioned_bucket_keeps_no_condition_and_is_found_out(options, videos):
    """This is so in Ceph 16.2, and no fault of featray; the lease then lets the last writer win."""
    place = locate("s3://old/x", options)
    assert create_bytes(place, b"1") and create_bytes(place, b"2"), "then it keeps it, and the docs have to say so"
    assert not enforces(place, b"2")


@pytest.mark.parametrize("bucket", ["tables", "old"])
def test_one_of_many_gets_the_lease(options, videos, monkeypatch, bucket):
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 3)
    partition = Partition(open_output(f"s3://{bucket}/leases", options, create=True), "d", "r")
    together, held = threading.Barrier(4), []

    def claim(number):
        together.wait()
        try:
            held.append(hold(partition, f"run-{number}"))
        except LeaseError:
            return

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    (lease,) = held
    lease.partition.check()


def test_a_run_in_a_versioned_bucket(options, videos):
    """Deleted objects remain as older versions, so an erasure also needs the bucket's lifecycle rule."""
    config = config_of(options, "s3://old/out", ["s3://pool/raw/oslo/face.mp4"])
    assert run_here(config).videos == {"ok": 1, "partial": 0, "failed": 0}
    assert not verify(open_output("s3://old/out", options)).problems
    shown = set(list_files(locate("s3://old/out", options)))
    kept = client(options).list_object_versions(Bucket="old", Prefix="out/")["Versions"]
    assert {f"old/{version['Key']}" for version in kept} > shown


def test_a_large_file_goes_up_in_parts(options, videos, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(101 << 20)
    place = locate("s3://tables/big", options)
    upload(str(big), place)
    assert client(options).head_object(Bucket="tables", Key="big")["ETag"].endswith('-3"')
    assert place.fs.size(place.path) == 101 << 20
    before = list_versions(locate("s3://tables", options), suffix="big")
    delete(place)
    write_bytes(place, b"another")
    assert list_versions(locate("s3://tables", options), suffix="big") != before


def test_what_was_written_is_listed_at_once_beyond_a_page(options, videos):
    """1,200 keys are two pages."""
    keys = [f"pages/{number:04d}.mp4" for number in range(1200)]
    store, one = client(options), client(options, "s3")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put_object(Bucket="pool", Key=key, Body=b"x"), keys))
    place = locate("s3://pool/pages", options)
    assert list_files(place) == [f"pool/{key}" for key in keys]
    found = [video.uri for video in list_videos(InputConfig(uris=["s3://pool/pages/"], storage_options=options))]
    assert found == [f"s3://pool/{key}" for key in keys]
    for key in keys[::400]:
        one.delete_object(Bucket="pool", Key=key)
        assert f"pool/{key}" not in list_files(place)


ODD = [
    "odd/a.mp4",
    "odd/a.mp4/",
    "odd/a.mp4/b.mp4",
    "odd//c.mp4",
    "odd/d e+f&g=h%20#?.mp4",
    "odd/ü/é.mp4",
    "odd/e.mp4/",
]


def test_keys_that_look_like_folders(options, videos):
    store = client(options)
    for key in ODD:
        store.put_object(Bucket="pool", Key=key, Body=key.encode())
    found = list(list_videos(InputConfig(uris=["s3://pool/odd/"], storage_options=options)))
    assert [video.uri for video in found] == sorted(f"s3://pool/{key}" for key in ODD if not key.endswith("/"))
    for video in found:
        with open_source(video, options) as file:
            assert file.read().decode() == video.uri.removeprefix("s3://pool/")


def test_whoever_asks_pays(ceph, options, videos):
    """Others may read this bucket if they pay: the storage option for it applies to listing and reading."""
    store, guest = client(options), ceph.user("guest")
    store.create_bucket(Bucket="paid")
    store.put_object(Bucket="paid", Key="raw/a.mp4", Body=b"x")
    allowed = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    allowed["Resource"] = ["arn:aws:s3:::paid", "arn:aws:s3:::paid/*"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    store.put_bucket_policy(Bucket="paid", Policy=policy)
    store.put_bucket_request_payment(Bucket="paid", RequestPaymentConfiguration={"Payer": "Requester"})
    with pytest.raises(AccessDenied, match="access denied"):
        list(list_videos(InputConfig(uris=["s3://paid/raw/"], storage_options=guest)))
    paying = {**guest, "requester_pays": True}
    (video,) = list_videos(InputConfig(uris=["s3://paid/raw/*.mp4"], storage_options=paying))
    with open_source(video, paying) as file:
        assert file.read() == b"x"


NAMES = {"INPUT_BUCKET": "pool", "INPUT_PREFIX": "raw", "OUTPUT_BUCKET": "tables", "OUTPUT_PREFIX": "facial"}


@pytest.fixture(scope="module")
def bound(ceph, options, videos):
    """Return the options of a user with infra/iam/s3-policy.json.

    As its README says for Ceph, the policy also has the bucket itself as a resource, for deleting many keys.
    """
    policy = (REPOSITORY / "infra/iam/s3-policy.json").read_text()
    for name, value in NAMES.items():
        policy = policy.replace(name, value)
    document = json.loads(policy)
    (writing,) = (one for one in document["Statement"] if one["Sid"] == "WriteTheTables")
    writing["Resource"] = [writing["Resource"], "arn:aws:s3:::tables"]
    user = ceph.user("bound")
    given = {"UserName": "bound", "PolicyName": "featray", "PolicyDocument": json.dumps(document)}
    client(options, "iam").put_user_policy(**given)
    return user


def test_the_policy_is_enough_with_its_conditions(bound):
    config = config_of(bound, "s3://tables/facial", ["s3://pool/raw/**/*.mp4"])
    assert run_here(config).videos == {"ok": 2, "partial": 0, "failed": 0}
    assert run_here(config).status == "nothing_to_do"
    assert not verify(open_output("s3://tables/facial", bound)).problems


def test_and_nothing_else_is_allowed(bound, options):
    for uri in ("s3://pool/", "s3://pool/private/", "s3://pool/private/*.mp4", "s3://pool/private/face.mp4"):
        with pytest.raises(AccessDenied):
            list(list_videos(InputConfig(uris=[uri], storage_options=bound)))
    for uri in ("s3://pool/raw/new", "s3://tables/other/new", "s3://tables/facial2/new"):
        with pytest.raises(AccessDenied, match="access denied"):
            write_bytes(locate(uri, bound), b"x")
    kept = locate("s3://tables/other/kept", options)
    write_bytes(kept, b"x")
    with pytest.raises(AccessDenied):
        delete(locate(kept.uri, bound))
    gone = client(bound).delete_objects(Bucket="tables", Delete={"Objects": [{"Key": "other/kept"}]})
    assert gone["Errors"][0]["Code"] == "AccessDenied" and read_bytes(kept) == b"x"


MAY_ASSUME = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/featray"]}, "Action": ["sts:AssumeRole"]}
MAY_ALL = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}
GOOD_SECONDS = 40


def test_credentials_expire_in_the_middle_and_are_renewed(ceph, options, videos, tmp_path, monkeypatch):
    """Tokens have the minimum of 15 minutes, from a gateway whose clock is behind, so they are valid for 40 s here."""
    assume, everything = (json.dumps({"Version": "2012-10-17", "Statement": [one]}) for one in (MAY_ASSUME, MAY_ALL))
    ceph.admin("role", "create", "--role-name=job", f"--assume-role-policy-doc={assume}")
    ceph.admin("role-policy", "put", "--role-name=job", "--policy-name=all", f"--policy-doc={everything}")
    given, over = [], threading.Event()
    with behind(ceph, 900 - GOOD_SECONDS) as slow:
        sts = client(options, "sts", endpoint_url=slow)

        def give():
            role = {"RoleArn": "arn:aws:iam:::role/job", "RoleSessionName": "job", "DurationSeconds": 900}
            new = sts.assume_role(**role)["Credentials"]
            given.append(new)
            names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
            known = {"Version": 1, "Expiration": new["Expiration"].isoformat()} | {name: new[name] for name in names}
            (tmp_path / "new.json").write_text(json.dumps(known))
            (tmp_path / "new.json").rename(tmp_path / "credentials.json")

        def renew():
            while not over.wait(GOOD_SECONDS / 8):
                give()

        give()
        (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/credentials.json\n")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        renewing = threading.Thread(target=renew)
        renewing.start()
        try:
            told = {"endpoint_url": ceph.url}
            config = config_of(told, "s3://tables/renewed", ["s3://pool/raw/**/*.mp4"])
            summary = run_here(config)
            over.wait(max(0, (given[0]["Expiration"] - datetime.now(UTC)).total_seconds() + 2))
        finally:
            over.set()
            renewing.join()
    assert summary.videos == {"ok": 2, "partial": 0, "failed": 0}
    first = {"key": given[0]["AccessKeyId"], "secret": given[0]["SecretAccessKey"]}
    stale = {"endpoint_url": ceph.url, "token": given[0]["SessionToken"], **first}
    with pytest.raises(AccessDenied, match="that they have not expired"):
        read_bytes(locate("s3://pool/raw/oslo/face.mp4", stale))


def test_a_wrong_signature_is_refused(ceph, options, videos):
    """Otherwise none of the tests above would prove anything."""
    with pytest.raises(ClientError, match=r"AccessDenied|SignatureDoesNotMatch"):
        client({**options, "secret": "other"}).list_objects_v2(Bucket="pool")


@pytest.mark.parametrize(
    "path, chosen",
    [
        ("tests/integration/test_s3.py", ""),
        # Without the proxy, which drops a signed header.
        ("tests/unit/tables/test_lease.py", "s3 and not conditions"),
        ("tests/faults/test_storage.py", "stormy"),
    ],
)
def test_the_tests_of_s3_pass_here_too(ceph, path, chosen):
    """They empty the store first, so they come last."""
    environment = {**os.environ, s3.ENDPOINT: ceph.url}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path, "-k", chosen]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode and " passed" in done.stdout, done.stdout[-5000:]
