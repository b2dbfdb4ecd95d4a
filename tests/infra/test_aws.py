"""`ray up infra/ray/aws.yaml` against an EC2 server (moto); then the head's permissions, tested by its own calls.

Commands over SSH are recorded and not executed, so Docker, the image and the machines are not tested here.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from click import ClickException
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

from tests.fixtures import s3
from tests.fixtures.infra_files import INFRA, image_environment

pytestmark = pytest.mark.infra

AWS = yaml.safe_load((INFRA / "ray/aws.yaml").read_text())
REGION = AWS["provider"]["region"]
ADMIN = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "region_name": REGION}

SSH = """#!{python}
# A machine with Docker, of which one asks over SSH: answers from what was asked before, and writes it down.
import os, sys
log, command = os.environ["MACHINE_LOG"], sys.argv[-1]
before = open(log).read()
open(log, "a").write(command.replace("\\n", " ") + "\\n")
if "State.Running" in command:
    print("true" if "docker run" in before else "false")
elif "json .Config.Env" in command:
    print('["HOME=/home/featray"]')
elif "printenv HOME" in command:
    print("/home/featray")
elif "command -v docker" in command:
    print("/usr/bin/docker")
elif ".Mounts" in command:
    print("[]")
"""
RSYNC = """#!{python}
import os, shutil, sys
log, source, target = os.environ["MACHINE_LOG"], *sys.argv[-2:]
open(log, "a").write(f"rsync {{source}} {{target}}\\n")
shutil.copy(source, os.path.join(os.path.dirname(log), os.path.basename(target)))
"""


@pytest.fixture(scope="module")
def server():
    """Yield an EC2 and IAM server with the two instance profiles of aws.yaml, each with a role of its name."""
    with s3.server() as url:
        iam = boto3.client("iam", endpoint_url=url, **ADMIN)
        for name in ("featray-head", "featray-worker"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        yield url


@pytest.fixture(scope="module")
def up(server, tmp_path_factory):
    """Run `ray up`, and return the folder with the copied files, and the commands that it sent to the machine."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "bin").mkdir()
    for name, text in (("ssh", SSH), ("rsync", RSYNC)):
        (folder / "bin" / name).write_text(text.format(python=sys.executable))
        (folder / "bin" / name).chmod(0o755)
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("t" * 40)
    log = folder / "log"
    log.touch()
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "HOME": str(folder),
        "PATH": f"{folder}/bin:{scripts}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "root",
        "AWS_SECRET_ACCESS_KEY": "root",
        "MACHINE_LOG": str(log),
    }
    command = [str(scripts / "ray"), "up", "--yes", "--no-config-cache", str(INFRA / "ray/aws.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder, [plain(line) for line in log.read_text().splitlines()]


def plain(line):
    """Return the innermost command of one that is wrapped in several shells."""
    text = line
    while True:
        parts = shlex.split(text) if text.count("'") % 2 == 0 else [text]
        inner = max(parts, key=len, default="")
        if len(inner) >= len(text) or "&& (" not in inner:
            break
        text = inner
    return re.sub(r"^.*?&& \((.*)\)\s*$", r"\1", text)


def test_the_head_is_started_as_it_is_written(up, server):
    ec2 = boto3.client("ec2", endpoint_url=server, **ADMIN)
    (head,) = (i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"])
    wanted = AWS["available_node_types"]["head"]["node_config"]
    assert (head["ImageId"], head["InstanceType"]) == (wanted["ImageId"], wanted["InstanceType"])
    assert head["IamInstanceProfile"]["Arn"].endswith("/featray-head")
    assert head["MetadataOptions"].items() >= wanted["MetadataOptions"].items()
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert tags["ray-cluster-name"] == AWS["cluster_name"] and tags["ray-node-status"] == "up-to-date"


def test_the_machine_is_asked_for_what_the_image_and_the_host_have(up):
    _, asked = up
    text = "\n".join(asked)
    steps = [
        *AWS["initialization_commands"],
        f"docker pull {AWS['docker']['image']}",
        "docker run ",
        *AWS["setup_commands"],
        "boto3",  # added by Ray; does nothing if the image has it
        "ray stop",
        "ray start --head",
    ]
    places = [text.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), dict(zip(steps, places, strict=True))
    (run,) = [line for line in asked if "docker run " in line]
    assert all(option in run for option in AWS["docker"]["run_options"])
    assert "--net=host" in run, "or the metadata service were one hop too far for the container"
    assert run.split()[-2:] == [AWS["docker"]["image"], "bash"]
    (token,) = AWS["file_mounts"]
    assert f":{token} " in run
    copied = [line for line in asked if "rsync -e" in line]
    assert copied and all("docker exec" in line for line in copied), "rsync is run in the container too"


def test_the_head_gets_the_token_its_config_and_the_key(up):
    folder, _ = up
    assert (folder / "auth_token").read_text() == "t" * 40
    config = yaml.safe_load((folder / "ray_bootstrap_config.yaml").read_text())
    assert config["auth"]["ssh_private_key"] == "~/ray_bootstrap_key.pem"
    assert "PRIVATE KEY" in (folder / "ray_bootstrap_key.pem").read_text()
    assert image_environment()["RAY_AUTH_MODE"] == "token"


def policy(without=None):
    """Return head-policy.json for moto, which supports neither conditions nor resources of EC2."""
    document = json.loads((INFRA / "iam/head-policy.json").read_text())
    statements = []
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if kept := [action for action in actions if action != without]:
            statements.append({"Sid": statement["Sid"], "Effect": "Allow", "Action": kept, "Resource": "*"})
    return json.dumps({"Version": document["Version"], "Statement": statements})


@pytest.fixture(scope="module")
def head(up, server):
    """Use the head's permissions from here on; yield a function that sets them, and the config from `ray up`."""
    folder, _ = up
    iam = boto3.client("iam", endpoint_url=server, **ADMIN)
    iam.create_user(UserName="admin")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="admin", PolicyName="p", PolicyDocument=json.dumps(everything))
    admin_key = iam.create_access_key(UserName="admin")["AccessKey"]
    iam.create_user(UserName="head")
    key = iam.create_access_key(UserName="head")["AccessKey"]
    urlopen(Request(f"{server}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})).close()
    keys = {"aws_access_key_id": admin_key["AccessKeyId"], "aws_secret_access_key": admin_key["SecretAccessKey"]}
    admin = boto3.client("iam", endpoint_url=server, region_name=REGION, **keys)

    def allow(document):
        admin.put_user_policy(UserName="head", PolicyName="p", PolicyDocument=document)

    config = yaml.safe_load((folder / "ray_bootstrap_config.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server)
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield allow, config


def grow_and_shrink(config):
    """Do what the autoscaler does in a run: start a worker, find it, tag it, terminate it."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])  # after failed tagging it waits forever
    kinds = config["available_node_types"]
    tags = {"ray-node-type": "worker", "ray-node-status": "uninitialized", "ray-user-node-type": "infer"}
    (worker,) = provider.create_node(kinds["infer"]["node_config"], tags, 1)
    assert worker in provider.non_terminated_nodes({"ray-node-type": "worker"})
    provider.set_node_tags(worker, {"ray-node-status": "up-to-date"})
    provider.terminate_node(worker)


def test_the_head_s_policy_is_enough(head):
    allow, config = head
    allow(policy())
    grow_and_shrink(config)


@pytest.mark.parametrize("call", ["DescribeInstances", "RunInstances", "CreateTags", "TerminateInstances"])
def test_each_of_its_rights_is_needed(call, head, capsys):
    allow, config = head
    allow(policy(without=f"ec2:{call}"))
    with pytest.raises((ClientError, ClickException, NodeLaunchException)) as stopped:
        grow_and_shrink(config)
    told = capsys.readouterr()
    assert f"not authorized to perform: ec2:{call}" in f"{stopped.value}{told.out}{told.err}"


def test_a_worker_started_by_the_head_has_the_worker_s_role(head):
    _, config = head
    kinds = config["available_node_types"]
    profiles = {name: kind["node_config"]["IamInstanceProfile"]["Name"] for name, kind in kinds.items()}
    assert profiles == {"head": "featray-head", "decode": "featray-worker", "infer": "featray-worker"}
    statements = json.loads((INFRA / "iam/head-policy.json").read_text())["Statement"]
    (passing,) = [one for one in statements if one["Action"] == "iam:PassRole"]
    assert passing["Resource"].endswith(":role/featray-worker")
