"""The Kubernetes manifests: fields that exist, sums that fit, and a schedule that never lets two runs overlap."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from featray.config import load_config
from featray.graph.workers import Node, choose_workers
from featray.model.source import find_hub_file
from tests.fixtures.infra_files import INFRA, QUIET, REPOSITORY, document, documents, image_environment, locked

FIELDS = json.loads((REPOSITORY / "tests/data/infra/kubernetes_fields.json").read_text())["types"]
GIB = 1 << 30
PLAIN = {"str": str, "int": int, "float": (int, float), "bool": bool, "object": object}


def unknown(value, kind, where):
    """What of a value is no field of its type, or not of its field's type."""
    if match := re.fullmatch(r"List\[(.*)\]", kind):
        items = enumerate(value) if isinstance(value, list) else []
        found = [] if isinstance(value, list) else [f"{where}: not a list"]
        return found + [problem for i, item in items for problem in unknown(item, match[1], f"{where}[{i}]")]
    if match := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        items = value.items() if isinstance(value, dict) else []
        found = [] if isinstance(value, dict) else [f"{where}: not a mapping"]
        return found + [problem for k, item in items for problem in unknown(item, match[1], f"{where}.{k}")]
    if kind in FIELDS:
        if not isinstance(value, dict):
            return [f"{where}: not a mapping"]
        problems = [f"{where}.{key}: no such field" for key in value if key not in FIELDS[kind]]
        known = [(key, item) for key, item in value.items() if key in FIELDS[kind]]
        return problems + [p for k, item in known for p in unknown(item, FIELDS[kind][k], f"{where}.{k}")]
    if "|" in kind:
        return [] if value in kind.split("|") else [f"{where}: {value!r} is none of {kind}"]
    return [] if isinstance(value, PLAIN.get(kind, object)) else [f"{where}: {value!r} is no {kind}"]


OBJECTS = [(f, d) for f in ("rayjob", "schedule", "accounts", "network-policy") for d in documents(f"kuberay/{f}.yaml")]


@pytest.mark.parametrize(("file", "value"), OBJECTS, ids=lambda v: v if isinstance(v, str) else v["kind"])
def test_fields_exist(file, value):
    kind = value["kind"] if value["kind"] == "RayJob" else f"V1{value['kind']}"
    assert unknown(value, kind, value["kind"]) == []


def test_the_field_check_finds_what_is_wrong():
    wrong = yaml.safe_load((INFRA / "kuberay/rayjob.yaml").read_text().replace("tolerations", "tolerance"))
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] = "four"
    wrong["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "open"
    assert len(unknown(wrong, "RayJob", "RayJob")) == 3


JOB = document("kuberay/rayjob.yaml", "RayJob")["spec"]
CLUSTER = JOB["rayClusterSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
PODS = {
    "head": CLUSTER["headGroupSpec"]["template"],
    **{name: group["template"] for name, group in GROUPS.items()},
    "submitter": JOB["submitterPodTemplate"],
}
CONFIG = load_config(INFRA / "kuberay/config.yaml")


def size_bytes(text):
    return int(float(text.rstrip("Gi")) * GIB) if text.endswith("Gi") else int(text)


def environment(container):
    return {one["name"]: one.get("value") for one in container["env"]}


def containers():
    for name, pod in PODS.items():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield f"{name}/{container['name']}", container


def test_the_job_runs_what_is_in_the_image_on_what_is_in_the_config_map():
    program, script, flag, config = JOB["entrypoint"].split()
    assert (program, flag) == ("python", "--config")
    assert (REPOSITORY / script.removeprefix("/opt/featray/")).is_file()
    (mount,) = [m for m in PODS["head"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "config"]
    assert config == f"{mount['mountPath']}/config.yaml"
    (volume,) = [v for v in PODS["head"]["spec"]["volumes"] if v["name"] == "config"]
    kustomization = document("kuberay/kustomization.yaml", "Kustomization")
    generated = {g["name"]: g["files"] for g in kustomization["configMapGenerator"]}
    assert generated[volume["configMap"]["name"]] == ["config.yaml"]
    (manifests,) = [v for v in CRON["volumes"] if v["name"] == "manifests"]
    assert generated[manifests["configMap"]["name"]] == ["rayjob.yaml"]


def test_every_file_of_the_kustomization_is_there():
    kustomization = document("kuberay/kustomization.yaml", "Kustomization")
    named = [*kustomization["resources"], *(f for g in kustomization["configMapGenerator"] for f in g["files"])]
    there = {path.name for path in (INFRA / "kuberay").glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(named) == sorted(there)


def test_versions_are_those_that_are_locked():
    assert CLUSTER["rayVersion"] == locked()["ray"]
    from featray import __version__

    assert {container["image"] for _, container in containers()} == {f"registry.example.org/featray:{__version__}"}


def test_the_config_names_the_cluster_at_its_full_size():
    cpus = sum(group["maxReplicas"] * int(group["rayStartParams"]["num-cpus"]) for group in GROUPS.values())
    gpus = sum(group["maxReplicas"] * int(group["rayStartParams"].get("num-gpus", 0)) for group in GROUPS.values())
    assert (CONFIG.cluster.cpus, CONFIG.cluster.gpus) == (cpus, gpus)
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "videos stay away from the head"
    there = sum(group["minReplicas"] * int(group["rayStartParams"]["num-cpus"]) for group in GROUPS.values())
    workers = choose_workers([Node(there, 0, 2**34)], CONFIG.cluster)
    assert workers.infer == gpus and workers.decode == cpus - gpus
    assert workers.decode * workers.decode_cpus < cpus


def test_the_release_does_not_hang_on_what_is_there_at_the_start():
    assert CONFIG.model.engine != "auto" and CONFIG.model.precision != "auto"


def test_groups_grow_and_shrink():
    assert CLUSTER["enableInTreeAutoscaling"] is True
    assert CLUSTER["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    for group in GROUPS.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["minReplicas"] < group["maxReplicas"]
    assert JOB["shutdownAfterJobFinishes"] and JOB["ttlSecondsAfterFinished"] > 0 and JOB["backoffLimit"] == 0


@pytest.mark.parametrize("name", GROUPS)
def test_ray_asks_for_no_more_than_the_pod_has(name):
    group = GROUPS[name]
    (container,) = group["template"]["spec"]["containers"]
    limits, params = container["resources"]["limits"], group["rayStartParams"]
    volumes = {v["name"]: v["emptyDir"] for v in group["template"]["spec"]["volumes"]}
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert int(params["num-cpus"]) < int(limits["cpu"])
    assert params.get("num-gpus") == limits.get("nvidia.com/gpu")
    assert mounts["shm"] == "/dev/shm" and volumes["shm"]["medium"] == "Memory"
    assert int(params["object-store-memory"]) < size_bytes(volumes["shm"]["sizeLimit"])
    left = size_bytes(limits["memory"]) - size_bytes(volumes["shm"]["sizeLimit"])
    assert left / int(params["num-cpus"]) > CONFIG.decode.memory_limit_gib / 4 * GIB, "for each decoder"
    assert params["object-spilling-directory"] == mounts["spill"] and "medium" not in volumes["spill"]
    assert container["resources"]["requests"] == limits


def test_only_gpu_pods_tolerate_and_take_gpus():
    tolerant = {name for name, pod in PODS.items() if pod["spec"].get("tolerations")}
    with_gpu = {name for name, c in containers() if "nvidia.com/gpu" in c["resources"]["limits"]}
    assert tolerant == {"infer"} and with_gpu == {"infer/ray-worker"}


def test_no_licence_is_accepted_for_the_user():
    for path in (*REPOSITORY.glob("configs/*.yaml"), INFRA / "kuberay/config.yaml", INFRA / "compose/config.yaml"):
        model = load_config(path).model
        assert (model.checkpoint, model.accept_license) == ("synthetic", None), path
    for path in INFRA.rglob("*.yaml"):
        used = re.sub(r"#.*", "", path.read_text())
        assert "accept" not in used and "hf://" not in used, path


def test_weights_are_pulled_once_into_the_cache_that_ray_uses(tmp_path):
    """Those of the lines that a user takes in, who agrees to their licence."""
    cache = image_environment()["FEATRAY_CACHE"]
    taken_in = {}
    for name in ("config", "rayjob"):
        text = (INFRA / f"kuberay/{name}.yaml").read_text().replace("                - list\n", "")
        taken_in[name] = tmp_path / f"{name}.yaml"
        taken_in[name].write_text(re.sub(r"# (?=checkpoint: |accept_license: |- pull|- v2|- --)", "", text))
    model = load_config(taken_in["config"]).model
    assert model.accept_license
    agreed = yaml.safe_load(taken_in["rayjob"].read_text())["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    (pull,) = agreed["spec"]["initContainers"]
    assert pull["command"] == [
        "featray", "models", "pull", model.checkpoint, "--no-check", f"--accept-license={model.accept_license}"
    ]  # fmt: skip
    find_hub_file(model.checkpoint, model.revision)
    for name in ("head", *GROUPS):
        pod = PODS[name]["spec"]
        (pull,) = pod["initContainers"]
        assert pull["command"] == ["featray", "models", "list"]
        (main,) = pod["containers"]
        for container in (pull, main):
            assert environment(container)["FEATRAY_CACHE"] == cache
            assert {"name": "cache", "mountPath": cache} in container["volumeMounts"]


def test_the_hub_s_token_is_a_secret_of_the_pulling_container_only():
    with_token = {name for name, c in containers() if "HF_TOKEN" in environment(c)}
    assert with_token == {"head/pull-weights", *(f"{name}/pull-weights" for name in GROUPS)}
    text = (INFRA / "kuberay/rayjob.yaml").read_text()
    for _, container in containers():
        for one in container["env"]:
            assert "TOKEN" not in one["name"] or "secretKeyRef" in one["valueFrom"]
            assert not re.search("SECRET|PASSWORD|ACCESS_KEY", one["name"])
    assert "hf_" not in text


def test_everything_is_quiet():
    for name, container in containers():
        assert environment(container).items() >= QUIET.items(), name
    assert {one["name"]: one["value"] for one in CLUSTER["autoscalerOptions"]["env"]}.items() >= QUIET.items()
    for params in [CLUSTER["headGroupSpec"]["rayStartParams"], *(g["rayStartParams"] for g in GROUPS.values())]:
        assert params["disable-usage-stats"] == "true"


def test_ray_asks_for_a_token():
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_pods_have_few_rights():
    for name, pod in PODS.items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and pod["spec"]["securityContext"]["runAsUser"] == 1000
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert name == "head" or pod["spec"]["automountServiceAccountToken"] is False
    for _, container in containers():
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    accounts = {d["metadata"]["name"] for d in documents("kuberay/accounts.yaml")}
    assert {pod["spec"]["serviceAccountName"] for pod in PODS.values()} == accounts


def test_the_network_policy_holds_for_every_pod_and_keeps_them_from_the_metadata_service():
    policy = document("kuberay/network-policy.yaml", "NetworkPolicy")["spec"]
    wanted = policy["podSelector"]["matchLabels"].items()
    assert all(pod["metadata"]["labels"].items() >= wanted for pod in PODS.values())
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (world,) = [t["ipBlock"] for rule in policy["egress"] for t in rule["to"] if "ipBlock" in t]
    assert world["except"] == ["169.254.169.254/32"]
    exported = {g["rayStartParams"]["metrics-export-port"] for g in GROUPS.values()}
    opened = {str(p["port"]) for rule in policy["ingress"] for p in rule.get("ports", [])}
    assert opened == exported | {"8265"}


CRON = document("kuberay/schedule.yaml", "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
KUBECTL = """#!/bin/sh
# A cluster of one object, in files: "state" holds its status, "log" what was asked.
echo "$@" >> "$CLUSTER/log"
case "$1" in
  get) [ -e "$CLUSTER/state" ] || exit 0; printf 'featray-extract %s' "$(cat "$CLUSTER/state")" ;;
  delete) rm "$CLUSTER/state" ;;
  create) if [ -e "$CLUSTER/state" ]; then echo AlreadyExists >&2; exit 1; fi; : > "$CLUSTER/state" ;;
esac
"""


@pytest.mark.parametrize(
    ("state", "asked", "status"),
    [
        (None, ["get", "create"], 0),
        ("Complete", ["get", "delete", "create"], 0),
        ("Failed", ["get", "delete", "create"], 0),
        ("Running", ["get"], 0),
        ("Initializing", ["get"], 0),
        ("Waiting", ["get"], 0),
        ("Retrying", ["get"], 0),
        ("Suspending", ["get"], 0),
        ("Suspended", ["get"], 1),
        ("ValidationFailed", ["get"], 1),
        ("WhatKubeRayMaySayOneDay", ["get"], 1),
        ("", ["get"], 0),  # created a moment ago, not looked at by the operator yet
    ],
)
def test_the_schedule_starts_a_run_only_where_none_is_going_on(state, asked, status, tmp_path):
    """The script of the CronJob, in a shell, with a stand-in for kubectl and the cluster behind it.

    It cannot show that the role is enough for the real kubectl, nor that KubeRay's finalizer lets go in time.
    """
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(0o755)
    if state is not None:
        (tmp_path / "state").write_text(state)
    (container,) = CRON["containers"]
    env = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "CLUSTER": str(tmp_path)}
    done = subprocess.run([*container["command"], *container["args"]], env=env, capture_output=True, text=True)
    log = (tmp_path / "log").read_text().splitlines()
    assert done.returncode == status, done.stderr
    assert [line.split()[0] for line in log] == asked
    name = document("kuberay/rayjob.yaml", "RayJob")["metadata"]["name"]
    assert all(name in line or "--filename" in line for line in log)


def test_the_schedule_may_do_what_it_does_and_nothing_else():
    (container,) = CRON["containers"]
    verbs = {"get", "delete", "create"}
    assert verbs == set(re.findall(r"^(?!.*echo).*kubectl (\w+)", container["args"][0], re.M))
    verbs |= {"list", "watch"}  # with which kubectl waits for what it deletes
    role = document("kuberay/schedule.yaml", "Role")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == verbs
    assert all(rule["apiGroups"] == ["ray.io"] and rule["resources"] == ["rayjobs"] for rule in role["rules"])
    binding = document("kuberay/schedule.yaml", "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [s["name"] for s in binding["subjects"]] == [CRON["serviceAccountName"]]
    mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert f"--filename {mounted['manifests']}/rayjob.yaml" in container["args"][0]
    assert document("kuberay/schedule.yaml", "CronJob")["spec"]["concurrencyPolicy"] == "Forbid"


def test_third_party_images_are_versioned():
    (container,) = CRON["containers"]
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", container["image"])
    assert Path(INFRA / "kuberay/rayjob.yaml").read_text().count(":latest") == 0
