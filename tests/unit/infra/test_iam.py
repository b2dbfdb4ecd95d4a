"""infra/iam/s3-policy.json, on an S3 server that enforces policies: it is sufficient, and it allows nothing else."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest

from featray.config import InputConfig, parse_config
from featray.errors import ErrorCode, StorageError
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoTask
from featray.model.conventions import NEWEST
from featray.run.shards import cut_shards
from featray.schema import LANDED_SCHEMA
from featray.sources.listing import list_videos
from featray.store.location import locate
from featray.store.storage import upload, write_bytes
from featray.tables.commits import read_commits, write_manifest
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.tables.ledger import land_unit_part
from featray.tables.provenance import WeightsFacts, footer, run_row
from featray.tables.publish import PublishSettings, publish_shard
from featray.tables.query import connect, run_sql
from featray.tables.runs import begin_run, end_run
from featray.upkeep.recover import recover
from tests.fixtures import s3

REPOSITORY = Path(__file__).parents[3]
NAMES = {"INPUT_BUCKET": "videos", "INPUT_PREFIX": "raw", "OUTPUT_BUCKET": "tables", "OUTPUT_PREFIX": "facial"}
MIB = 1 << 20


def policy():
    text = (REPOSITORY / "infra/iam/s3-policy.json").read_text()
    for name, value in NAMES.items():
        text = text.replace(name, value)
    return json.loads(text)


def enforceable(document):
    """Return the policy without conditions, which moto treats as unmet; the log is checked against them instead."""
    return {**document, "Statement": [{k: v for k, v in s.items() if k != "Condition"} for s in document["Statement"]]}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("s3") / "requests.log"


@pytest.fixture(scope="module")
def options(log, clips):
    """Yield options of a user who has only the rights of this policy; buckets and videos exist already."""
    admin = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "region_name": "us-east-1"}
    with s3.server(log) as url:
        store = boto3.client("s3", endpoint_url=url, **admin)
        for bucket in ("videos", "tables"):
            store.create_bucket(Bucket=bucket)
        for key in ("raw/oslo/no_face.mp4", "raw/oslo/other.mp4", "private/no_face.mp4"):
            store.upload_file(str(clips / "no_face.mp4"), "videos", key)
        iam = boto3.client("iam", endpoint_url=url, **admin)
        iam.create_user(UserName="featray")
        document = json.dumps(enforceable(policy()))
        iam.put_user_policy(UserName="featray", PolicyName="featray", PolicyDocument=document)
        key = iam.create_access_key(UserName="featray")["AccessKey"]
        # From here on, rights are checked.
        urlopen(Request(f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})).close()
        yield {"endpoint_url": url, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


@pytest.fixture(scope="module")
def requests(log, options):
    """Return a function that yields the user's requests so far: method, bucket, key, query and response status."""
    skip = len(log.read_text().splitlines())

    def read():
        plain = re.sub("\x1b\\[[0-9;]*m", "", log.read_text())  # any status but a plain 200 is in colour
        lines = "\n".join(plain.splitlines()[skip:])
        for method, target, status in re.findall(r'"([A-Z]+) (\S+) HTTP/1\.1" (\d+)', lines):
            parts = urlsplit(target)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            query = parse_qs(parts.query, keep_blank_values=True)
            query.pop("x-id", None)  # the operation's name, which is redundant
            yield method, bucket, key, query, int(status)

    return read


def config_of(options, uris):
    return parse_config(
        {
            "dataset": "d",
            "input": {"uris": uris, "storage_options": options},
            "output": {"uri": "s3://tables/facial", "storage_options": options},
            "decode": {"sample": {"every": 24}},
        }
    )


def run_without_ray(config, partition, run_id, *, work_key="ab" * 32, replaces=None):
    """Process videos without faces step by step, as the graph does, and publish them."""
    weights = WeightsFacts("m", "m", "0" * 64, None, None, False, NEWEST.text, "")
    facts = {"engine": "torch", "precision": "fp32", "settings": {"detector": "0"}}
    row = run_row(config, run_id=run_id, release=partition.release, weights=weights, **facts)
    with hold(partition, run_id) as lease:
        recover(lease.partition, run_id)
        return _run_held(config, lease.partition, row, work_key, replaces)


def _run_held(config, partition, row, work_key, replaces):
    run_id = row["run_id"]
    begin_run(partition, row)
    tasks = [VideoTask(video, work_key, shard="", replaces=replaces) for video in list_videos(config.input)]
    child = ChildSettings(config.decode, config.detect, config.input.storage_options)
    decoder = IsolatedDecoder(child)
    settings = PublishSettings(run_id, ("faces",), (), footer(row))
    commits = []
    for manifest, cut in cut_shards(iter(tasks), run_id):
        write_manifest(partition, manifest)
        for task in cut:
            plan = decoder.plan(task.video)
            write_plan(partition.landing(task.video.video_id, task.work_key), plan)
            for unit in task.units(plan, {}):
                for chunk in decoder.chunks(unit):
                    outcome = chunk.outcome if chunk.last else None
                    nothing = LANDED_SCHEMA.empty_table()
                    land_unit_part(partition, unit, run_id, chunk.part, nothing, chunk.frames, outcome)
        commits.append(publish_shard(partition, manifest, settings))
    decoder.close()
    end_run(partition, {**row, "status": "done"})
    return commits


def test_a_run_gets_by_with_these_rights(options, requests):
    output = open_output("s3://tables/facial", options, create=True)
    partition = Partition(output, "d", "r")
    run_without_ray(config_of(options, ["s3://videos/raw/**/*.mp4"]), partition, "run-1")
    assert {video.status for commit in read_commits(partition) for video in commit.videos} == {"ok"}
    rows = run_sql(connect(output), "SELECT status, frames_sampled FROM videos").read_all().to_pylist()
    assert rows == [{"status": "ok", "frames_sampled": 4}] * 2
    assert [request for request in requests() if request[4] in (401, 403)] == []


def test_a_video_that_changed_replaces_its_rows(options, requests):
    """The only step that rewrites and deletes older files."""
    partition = Partition(open_output("s3://tables/facial", options), "d", "r")
    (old,) = [commit.name for commit in read_commits(partition) if commit.videos]
    config = config_of(options, ["s3://videos/raw/oslo/other.mp4"])
    run_without_ray(config, partition, "run-2", work_key="cd" * 32, replaces=old)
    rows = run_sql(connect(partition.output), "SELECT uri, run_id FROM videos ORDER BY uri").read_all().to_pylist()
    assert [row["run_id"] for row in rows] == ["run-1", "run-2"]
    assert [request for request in requests() if request[4] in (401, 403)] == []


def test_large_files_go_up_in_parts(options, requests, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(101 * MIB)
    place = locate("s3://tables/facial/big", options)
    upload(str(big), place)
    assert place.fs.size(place.path) == 101 * MIB
    place.fs.call_s3("abort_multipart_upload", Bucket="tables", Key="facial/other", UploadId=begun(place))
    asked = {(method, *sorted(query)) for method, _, key, query, _ in requests() if key.startswith("facial/")}
    assert {("POST", "uploads"), ("PUT", "partNumber", "uploadId"), ("DELETE", "uploadId")} <= asked


def begun(place):
    return place.fs.call_s3("create_multipart_upload", Bucket="tables", Key="facial/other")["UploadId"]


def test_listings_meet_the_conditions(requests):
    """The server ignores conditions, so the real requests above are checked: each lists an allowed prefix."""
    allowed = {
        statement["Resource"].rpartition(":")[2]: statement.get("Condition", {"StringLike": {"s3:prefix": ["*"]}})
        for statement in policy()["Statement"]
        if statement["Action"] == "s3:ListBucket"
    }
    listed = [(bucket, query) for method, bucket, key, query, _ in requests() if method == "GET" and not key]
    assert {bucket for bucket, _ in listed} == {"videos", "tables"}
    for bucket, query in listed:
        assert query["list-type"] == ["2"], query
        patterns = allowed[bucket]["StringLike"]["s3:prefix"]
        assert any(fnmatchcase(query["prefix"][0], pattern) for pattern in patterns), (bucket, query)
    assert [bucket for method, bucket, key, _, _ in requests() if method == "HEAD" and not key] == []


def test_every_right_is_used(requests):
    """A right that none of the steps above used is not needed."""
    used = set()
    for method, bucket, key, query, _ in requests():
        if not key and method == "GET":
            used.add((bucket, "s3:ListBucket"))
        elif method in ("GET", "HEAD"):
            used.add((bucket, "s3:GetObject"))
        elif method == "DELETE" and "uploadId" in query:
            used.add((bucket, "s3:AbortMultipartUpload"))
        elif method == "DELETE" or "delete" in query:
            used.add((bucket, "s3:DeleteObject"))
        else:
            used.add((bucket, "s3:PutObject"))
    granted = set()
    for statement in policy()["Statement"]:
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        granted |= {(r.rpartition(":")[2].partition("/")[0], action) for r in resources for action in actions}
    assert used == granted


def test_a_video_out_of_bounds_is_a_row(options, requests):
    """A video may be named, by a manifest for example, without being readable."""
    (named,) = list_videos(InputConfig(uris=["s3://videos/raw/oslo/no_face.mp4"], storage_options=options))
    elsewhere = named.address.replace("/raw/oslo/", "/private/")
    video = type(named)(named.video_id, elsewhere, elsewhere, named.size_bytes, named.content_id)
    config = config_of(options, ["s3://videos/raw/"])
    decoder = IsolatedDecoder(ChildSettings(config.decode, config.detect, options))
    assert decoder.plan(video).failure[:2] == ("plan", ErrorCode.ACCESS_DENIED)
    (unit,) = VideoTask(video, "ef" * 32, shard="").units(decoder.plan(named), {})
    (chunk,) = decoder.chunks(unit)  # planned while it could be read
    assert chunk.outcome.failures[0][:2] == ("decode", ErrorCode.ACCESS_DENIED)
    assert ("HEAD", "videos", "private/no_face.mp4", {}, 403) in list(requests())
    decoder.close()


@pytest.mark.parametrize(
    "place", ["s3://videos/raw/new", "s3://videos/private/new", "s3://tables/other/new", "s3://tables/facial2/new"]
)
def test_nothing_else_can_be_written(options, place):
    with pytest.raises(StorageError, match="access denied"):
        write_bytes(locate(place, options), b"x")


def test_an_output_out_of_bounds_ends_the_run(options):
    with pytest.raises(StorageError, match=r"s3://tables/other.*access denied"):
        open_output("s3://tables/other", options, create=True)
