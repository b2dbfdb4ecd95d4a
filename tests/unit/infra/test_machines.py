"""The Ray cluster on AWS and the compose setup: fields, files and settings."""

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import boto3
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from featray import __version__
from featray.config import load_config
from featray.graph.workers import choose_workers
from tests.fixtures import s3
from tests.fixtures.infra_files import INFRA, QUIET, REPOSITORY, image_environment, instructions, locked

AWS = yaml.safe_load((INFRA / "ray/aws.yaml").read_text())
COMPOSE = yaml.safe_load((INFRA / "compose/compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]


def test_ray_takes_the_cluster_file():
    schema = json.loads((Path(find_spec("ray").origin).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(AWS, schema)
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        jsonschema.validate(AWS | {"idle_timeout": 5}, schema)


def test_ray_prepares_the_cluster_file():
    """Ray's own steps before any request to EC2; tests/infra/test_aws.py tests the rest."""
    config = prepare_config(copy.deepcopy(AWS))
    validate_config(config)
    assert config["available_node_types"]["head"]["max_workers"] == 0
    assert config["available_node_types"].keys() == AWS["available_node_types"].keys()


def test_the_machines_image_is_said_and_its_driver_fits_what_torch_brings():
    text = (INFRA / "ray/aws.yaml").read_text()
    images = {kind["node_config"]["ImageId"] for kind in AWS["available_node_types"].values()}
    (image,) = images  # set explicitly: Ray's default has the driver of CUDA 11.2
    assert re.fullmatch(r"ami-\w{8,17}|resolve:ssm:/aws/service/[\w./-]+", image)
    assert image.removeprefix("resolve:ssm:") in text.partition("ImageId:")[0], "how to look it up"
    cuda, driver = re.search(r"CUDA (\d+\.\d+),? .*needs driver (\d+) or newer", text).groups()
    assert locked()["nvidia-cuda-runtime"].startswith(f"{cuda}.")
    assert int(driver) >= {"12": 525, "13": 580}[cuda.partition(".")[0]], "NVIDIA's table of CUDA and drivers"


def test_the_image_has_what_ray_up_runs_in_it():
    """Ray copies files into the container by rsync; the head starts the other nodes from inside it by boto3 and ssh."""
    install = " ".join(
        text for keyword, text in instructions("runtime") if keyword == "RUN" and "apt-get install" in text
    )
    assert {"openssh-client", "rsync"} <= set(install.split())
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [re.split("[<>=]", text)[0] for text in extras["aws"]] == ["boto3"] and "boto3" in locked()


def test_profiles_are_those_of_the_policies():
    kinds = AWS["available_node_types"]
    profiles = {name: kind["node_config"]["IamInstanceProfile"]["Name"] for name, kind in kinds.items()}
    assert profiles == {"head": "featray-head", "decode": "featray-worker", "infer": "featray-worker"}
    statements = json.loads((INFRA / "iam/head-policy.json").read_text())["Statement"]
    by_action = {str(one["Action"]): one for one in statements}
    assert by_action["iam:PassRole"]["Resource"].endswith(":role/featray-worker"), "and no other role"
    tag = AWS["cluster_name"]
    for statement in statements:
        conditions = statement.get("Condition", {}).get("StringEquals", {})
        changes = {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"} & set(
            re.findall(r"\w+:\w+", str(statement["Action"]))
        )
        if changes and "instance/*" in str(statement["Resource"]):
            assert tag in conditions.values() or conditions == {"ec2:CreateAction": "RunInstances"}, statement["Sid"]
        assert statement["Resource"] != "*" or statement["Action"] == "ec2:DescribeInstances"


def test_the_cluster_s_groups_grow_from_nothing_within_its_limit():
    kinds = {name: kind for name, kind in AWS["available_node_types"].items() if name != AWS["head_node_type"]}
    assert {kind["min_workers"] for kind in kinds.values()} == {0}
    assert sum(kind["max_workers"] for kind in kinds.values()) <= AWS["max_workers"]
    assert AWS["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in AWS["head_start_ray_commands"][-1]
    gpu = {name for name, kind in kinds.items() if "GPU" in kind["resources"]}
    assert gpu == {name for name, kind in kinds.items() if "--gpus=all" in str(kind.get("docker"))}


def test_the_gpu_config_fits_the_cluster_s_full_size():
    config = load_config(REPOSITORY / "configs/gpu.yaml")
    kinds = [kind for name, kind in AWS["available_node_types"].items() if name != "head"]
    cpus = sum(kind["max_workers"] * kind["resources"]["CPU"] for kind in kinds)
    gpus = sum(kind["max_workers"] * kind["resources"].get("GPU", 0) for kind in kinds)
    assert (config.cluster.cpus, config.cluster.gpus) == (cpus, gpus)
    assert choose_workers([], config.cluster).infer == config.cluster.gpus
    assert config.model.engine != "auto" and config.model.precision != "auto"


def test_the_cluster_is_quiet_and_asks_for_a_token():
    for command in (AWS["head_start_ray_commands"][-1], AWS["worker_start_ray_commands"][-1]):
        assert "--disable-usage-stats" in command
    assert image_environment()["RAY_AUTH_MODE"] == "token"
    (home,) = re.findall(
        r"useradd --uid 1000 --create-home (\w+)", " ".join(text for _, text in instructions("runtime"))
    )
    assert AWS["file_mounts"] == {f"/home/{home}/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in AWS["head_start_ray_commands"][-1]


def test_images_are_of_one_version():
    assert AWS["docker"]["image"] == f"registry.example.org/featray:{__version__}"
    assert {SERVICES[name]["image"] for name in OWN} == {f"featray:{__version__}"}
    for name in set(SERVICES) - set(OWN):
        assert re.search(r":(v?\d+\.\d+\.\d+)$", SERVICES[name]["image"]), name


def test_what_compose_mounts_and_builds_is_there():
    folder = INFRA / "compose"
    for name in OWN:
        build = SERVICES[name]["build"]
        assert (folder / build["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / build["dockerfile"]).is_file()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (folder / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert known, f"{name}: {volume}"
    assert OWN == ["clips", "head"]


def test_nothing_listens_beyond_this_machine():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) >= 3 and all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_is_quiet():
    for name in OWN:
        assert SERVICES[name]["environment"].items() >= QUIET.items(), name
    assert "--disable-usage-stats" in SERVICES["head"]["command"]
    grafana = SERVICES["grafana"]["environment"]
    assert (
        grafana["GF_SECURITY_ALLOW_EMBEDDING"] == "true"
        and "RAY_GRAFANA_IFRAME_HOST" in SERVICES["head"]["environment"]
    )
    assert {v for k, v in grafana.items() if k.startswith("GF_ANALYTICS_")} == {"false"}


def test_the_head_makes_the_token_without_which_ray_does_not_start(tmp_path):
    """Runs its entrypoint in a temporary home, with the real command line of Ray."""
    assert image_environment()["RAY_AUTH_MODE"] == "token" and SERVICES["head"]["command"][:2] == ["start", "--head"]
    entrypoint = [word.replace("$$", "$") for word in SERVICES["head"]["entrypoint"]]  # compose escapes `$` as `$$`
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"HOME": str(tmp_path), "PATH": path, "RAY_AUTH_MODE": "token", **QUIET}
    told = subprocess.run([*entrypoint, "--version"], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("ray, version ")
    assert len((tmp_path / ".ray" / "auth_token").read_text().strip()) >= 32


def test_prometheus_finds_ray_s_nodes():
    prometheus = yaml.safe_load((INFRA / "compose/prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    (file,) = job["file_sd_configs"][0]["files"]
    shared = Path(find_spec("ray").origin).parent / "dashboard/modules/metrics/export/prometheus/prometheus.yml"
    assert file in shared.read_text(), "the place that Ray's own configuration names"
    mounts = [dict([volume.split(":")[:2]]) for name in ("head", "prometheus") for volume in SERVICES[name]["volumes"]]
    assert sum(mount.get("ray") == str(Path(file).parent) for mount in mounts) == 2


def test_grafana_shows_what_is_in_its_folder():
    provider = yaml.safe_load((INFRA / "compose/grafana/dashboards.yaml").read_text())["providers"][0]
    source = yaml.safe_load((INFRA / "compose/grafana/datasource.yaml").read_text())["datasources"][0]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["../grafana"] == provider["options"]["path"]
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
    assert host in SERVICES and any(p.endswith(f":{port}") for p in SERVICES[host]["ports"])


def test_the_clips_are_uploaded_to_where_the_job_looks(tmp_path):
    """Runs the service's own script against an S3 server, with the environment that compose gives it."""
    config = load_config(INFRA / "compose/config.yaml")
    (pattern,) = config.input.uris
    with s3.server() as url:
        given = SERVICES["clips"]["environment"] | {"AWS_ENDPOINT_URL": url}
        script = INFRA / "compose/upload_clips.py"
        for _ in range(2):  # compose may start it again
            subprocess.run([sys.executable, str(script)], env=os.environ | given, check=True)
        store = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **_keys(given))
        keys = [entry["Key"] for entry in store.list_objects_v2(Bucket="videos")["Contents"]]
        assert sorted(keys) == ["raw/face.mp4", "raw/no_face.mp4"]
        assert all(f"s3://videos/{key}".startswith(pattern.partition("*")[0]) for key in keys)
        assert config.output.uri.split("/")[2] in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    script_in_container = SERVICES["clips"]["entrypoint"][1]
    assert SERVICES["clips"]["volumes"] == [f"./upload_clips.py:{script_in_container}:ro"]


def _keys(given):
    return {
        "aws_access_key_id": given["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": given["AWS_SECRET_ACCESS_KEY"],
    }
