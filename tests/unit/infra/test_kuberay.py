"""The RayJob as built: its fields exist, its resources fit, its references exist, and it has few rights."""

import re
from pathlib import Path

import pytest
import yaml

from featray import __version__
from featray.cli.root import main
from featray.config import load_config
from featray.graph.workers import Node, choose_workers
from featray.model.source import find_hub_file
from tests.fixtures.infra_files import INFRA, QUIET, REPOSITORY, document, documents, image_environment, locked
from tests.fixtures.manifests import WITHOUT_FIELDS, built, one, quantity, unknown_fields, words

GIB = 1 << 30
COMPONENTS = {"gpu8": "../components/gpu8", "spot": "../components/spot", "kueue": "../components/kueue"}
VARIANTS = {
    "job": ("job",),
    **{name: ("job", component) for name, component in COMPONENTS.items()},
    "all": ("job", *COMPONENTS.values()),
}
PLAIN = one(built("job"), "RayJob")["spec"]
BASE = built("")


def groups_of(spec):
    return {group["groupName"]: group for group in spec["rayClusterSpec"]["workerGroupSpecs"]}


def pods_of(spec):
    cluster = spec["rayClusterSpec"]
    workers = {name: group["template"] for name, group in groups_of(spec).items()}
    return {"head": cluster["headGroupSpec"]["template"], **workers, "submitter": spec["submitterPodTemplate"]}


def containers(spec):
    for name, pod in pods_of(spec).items():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield f"{name}/{container['name']}", container


def environment(container):
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@pytest.fixture(params=VARIANTS)
def spec(request):
    return one(built(*VARIANTS[request.param]), "RayJob")["spec"]


def config_of(spec, environment_of):
    """Return the config of the job as featray reads it, from the entrypoint as a shell expands it."""
    program, script, *arguments = words(spec["entrypoint"], environment_of)
    assert program == "python" and (REPOSITORY / script.removeprefix("/opt/featray/")).is_file()
    flag, path = arguments[-2:]
    (mount,) = [m for m in pods_of(spec)["head"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "config"]
    assert (flag, path) == ("--config", f"{mount['mountPath']}/config.yaml")
    arguments = [*arguments[:-2], str(INFRA / "kuberay/config.yaml")]  # as jobs/extract.py passes them on
    command = main.get_command(main.make_context("featray", ["run"], resilient_parsing=True), "run")
    parsed = command.make_context("run", list(arguments)).params
    (overrides,) = [value for value in parsed.values() if isinstance(value, tuple) and "cluster.gpus" in str(value)]
    return load_config(INFRA / "kuberay/config.yaml", overrides)


@pytest.mark.parametrize("name", [*VARIANTS, "existing/job", "existing/cluster", "", "kueue"])
def test_everything_that_is_built_has_fields_that_exist(name):
    for value in built(*VARIANTS.get(name, (name,))):
        if value["kind"] not in WITHOUT_FIELDS:
            assert unknown_fields(value) == []
        assert "namespace" not in value["metadata"], "that of the user's context"


def test_the_field_check_finds_what_is_wrong():
    wrong = yaml.safe_load(yaml.safe_dump(one(built("job"), "RayJob")).replace("tolerations", "tolerance"))
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] = "four"
    wrong["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "open"
    assert len(unknown_fields(wrong)) == 3


def test_no_number_is_left_open(spec):
    text = yaml.safe_dump({name: group["template"]["spec"]["containers"] for name, group in groups_of(spec).items()})
    assert not re.search(r"(cpu|memory|ephemeral-storage|gpu): ['\"]?0", text)
    for name in ("head", "submitter"):
        (container,) = pods_of(spec)[name]["spec"]["containers"]
        numbers = [value for key, value in environment(container).items() if re.match("DECODE|INFER", key)]
        assert len(numbers) == 5 and all(int(number) > 0 for number in numbers)


def test_the_run_is_told_of_the_cluster_at_its_full_size(spec):
    """True in both places where the entrypoint may be expanded: in the submitter's shell and in the head's."""
    by_pod = [environment(pods_of(spec)[name]["spec"]["containers"][0]) for name in ("submitter", "head")]
    for variables in by_pod:
        config = config_of(spec, {k: v for k, v in variables.items() if v})
        groups = groups_of(spec).values()
        cpus = sum(group["maxReplicas"] * int(group["rayStartParams"]["num-cpus"]) for group in groups)
        gpus = sum(group["maxReplicas"] * int(group["rayStartParams"].get("num-gpus", 0)) for group in groups)
        assert (config.cluster.cpus, config.cluster.gpus) == (cpus, gpus)
        there = sum(group["minReplicas"] * int(group["rayStartParams"]["num-cpus"]) for group in groups)
        workers = choose_workers([Node(there, 0, 2**34)], config.cluster)
        assert workers.infer == gpus and workers.decode == cpus - gpus
        assert workers.decode * workers.decode_cpus < cpus
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "videos stay off the head"


def test_the_release_does_not_hang_on_what_is_there_at_the_start():
    model = load_config(INFRA / "kuberay/config.yaml").model
    assert model.engine != "auto" and model.precision != "auto"


def test_versions_are_those_that_are_locked(spec):
    assert spec["rayClusterSpec"]["rayVersion"] == locked()["ray"]
    assert {c["image"] for _, c in containers(spec)} == {f"registry.example.org/featray:{__version__}"}


def test_groups_grow_and_shrink():
    cluster = PLAIN["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2" and cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    for group in groups_of(PLAIN).values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["minReplicas"] < group["maxReplicas"]


def test_a_run_that_failed_is_not_repeated_but_its_submitter_is():
    assert PLAIN["shutdownAfterJobFinishes"] and PLAIN["ttlSecondsAfterFinished"] > 0 and PLAIN["backoffLimit"] == 0
    assert PLAIN["submitterConfig"]["backoffLimit"] > 0


@pytest.mark.parametrize("name", ["decode", "infer"])
def test_ray_asks_for_no_more_than_the_pod_has(name, spec):
    group = groups_of(spec)[name]
    (container,) = group["template"]["spec"]["containers"]
    limits, params = container["resources"]["limits"], group["rayStartParams"]
    volumes = {v["name"]: v["emptyDir"] for v in group["template"]["spec"]["volumes"]}
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert int(params["num-cpus"]) <= int(limits["cpu"]) - 2
    assert params.get("num-gpus") == limits.get("nvidia.com/gpu")
    assert mounts["shm"] == "/dev/shm" and volumes["shm"]["medium"] == "Memory"
    assert int(params["object-store-memory"]) < quantity(volumes["shm"]["sizeLimit"])
    left = quantity(limits["memory"]) - quantity(volumes["shm"]["sizeLimit"])
    limit_gib = load_config(INFRA / "kuberay/config.yaml").decode.memory_limit_gib
    assert left / int(params["num-cpus"]) > limit_gib / 4 * GIB, "for each decoder"
    assert params["object-spilling-directory"] == mounts["spill"] and "medium" not in volumes["spill"]
    assert container["resources"]["requests"] == limits


def test_disks_that_are_asked_for_hold_what_may_be_written(spec):
    for name, pod in pods_of(spec).items():
        (main_container,) = pod["spec"]["containers"]
        disks = [
            v["emptyDir"] for v in pod["spec"]["volumes"] if "emptyDir" in v and v["emptyDir"].get("medium") is None
        ]
        written = sum(quantity(disk["sizeLimit"]) for disk in disks)
        assert quantity(main_container["resources"]["limits"]["ephemeral-storage"]) > written, name
        for container in [*pod["spec"].get("initContainers", []), main_container]:
            assert container["resources"]["requests"]["ephemeral-storage"], name


def test_only_gpu_pods_tolerate_and_take_gpus():
    tolerant = {name for name, pod in pods_of(PLAIN).items() if pod["spec"].get("tolerations")}
    with_gpu = {name for name, c in containers(PLAIN) if "nvidia.com/gpu" in c["resources"]["limits"]}
    assert tolerant == {"infer"} and with_gpu == {"infer/ray-worker"}


def test_no_pod_is_moved_to_save_money(spec):
    for name, pod in pods_of(spec).items():
        assert pod["metadata"]["annotations"] == {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "karpenter.sh/do-not-disrupt": "true",
        }, name


def test_no_licence_is_accepted_for_the_user():
    for path in (*REPOSITORY.glob("configs/*.yaml"), INFRA / "kuberay/config.yaml", INFRA / "compose/config.yaml"):
        model = load_config(path).model
        assert (model.checkpoint, model.accept_license) == ("synthetic", None), path
    for path in INFRA.rglob("*.yaml"):
        used = re.sub(r"#.*", "", path.read_text())
        assert "accept" not in used and "hf://" not in used, path


def test_weights_are_pulled_once_into_the_cache_that_ray_uses(tmp_path):
    """Uses the lines that a user uncomments after agreeing to the licence of the weights."""
    cache = image_environment()["FEATRAY_CACHE"]
    taken_in = {}
    for name in ("config", "job/rayjob"):
        text = (INFRA / f"kuberay/{name}.yaml").read_text().replace("                - list\n", "")
        taken_in[name] = tmp_path / f"{Path(name).name}.yaml"
        taken_in[name].write_text(re.sub(r"# (?=checkpoint: |accept_license: |- pull|- v2|- --)", "", text))
    model = load_config(taken_in["config"]).model
    assert model.accept_license
    agreed = yaml.safe_load(taken_in["job/rayjob"].read_text())["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    (pull,) = agreed["spec"]["initContainers"]
    assert pull["command"] == [
        "featray", "models", "pull", model.checkpoint, "--no-check", f"--accept-license={model.accept_license}"
    ]  # fmt: skip
    find_hub_file(model.checkpoint, model.revision)
    for name in ("head", "decode", "infer"):
        pod = pods_of(PLAIN)[name]["spec"]
        (pull,) = pod["initContainers"]
        assert pull["command"] == ["featray", "models", "list"]
        for container in (pull, *pod["containers"]):
            assert environment(container)["FEATRAY_CACHE"] == cache
            assert {"name": "cache", "mountPath": cache} in container["volumeMounts"]


def test_the_hub_s_token_is_a_secret_of_the_pulling_container_only():
    with_token = {name for name, c in containers(PLAIN) if "HF_TOKEN" in environment(c)}
    assert with_token == {"head/pull-weights", "decode/pull-weights", "infer/pull-weights"}
    text = (INFRA / "kuberay/job/rayjob.yaml").read_text()
    for _, container in containers(PLAIN):
        for variable in container["env"]:
            assert "TOKEN" not in variable["name"] or "secretKeyRef" in variable["valueFrom"]
            assert not re.search("SECRET|PASSWORD|ACCESS_KEY", variable["name"])
    assert "hf_" not in text


def test_everything_is_quiet():
    for name, container in containers(PLAIN):
        assert environment(container).items() >= QUIET.items(), name
    cluster = PLAIN["rayClusterSpec"]
    assert environment(cluster["autoscalerOptions"]).items() >= QUIET.items()
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert group["rayStartParams"]["disable-usage-stats"] == "true"


def test_every_variable_is_read_by_somebody():
    read_by_featray = (REPOSITORY / "featray/config.py").read_text()
    for _, container in containers(PLAIN):
        for name in environment(container):
            if name.startswith("FEATRAY_"):
                assert f'"{name}"' in read_by_featray
            elif re.match("DECODE_|INFER_", name):
                assert name in PLAIN["entrypoint"]
            else:
                assert re.match(r"(RAY_|HF_|AWS_|DO_NOT_TRACK$)", name), name


def test_what_pods_name_is_there():
    """Service accounts, config maps and volumes; secrets are optional."""
    there = {(o["kind"], o["metadata"]["name"]) for o in BASE}
    accounts = {d["metadata"]["name"] for d in documents("kuberay/accounts.yaml")}
    assert {pod["spec"]["serviceAccountName"] for pod in pods_of(PLAIN).values()} == accounts
    assert {("ServiceAccount", name) for name in accounts} <= there
    for _, container in containers(PLAIN):
        for source in container["envFrom"]:
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in there
            else:
                assert source["secretRef"]["optional"]
    for pod in pods_of(PLAIN).values():
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for volume in pod["spec"]["volumes"]:
            assert "configMap" not in volume or ("ConfigMap", volume["configMap"]["name"]) in there
    data = one(BASE, "ConfigMap", "featray-config")["data"]
    assert list(data) == ["config.yaml"]


def test_ray_asks_for_a_token():
    assert PLAIN["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_pods_have_few_rights():
    for name, pod in pods_of(PLAIN).items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and pod["spec"]["securityContext"]["runAsUser"] == 1000
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert name == "head" or pod["spec"]["automountServiceAccountToken"] is False
    securities = [container["securityContext"] for _, container in containers(PLAIN)]
    for security in [*securities, PLAIN["rayClusterSpec"]["autoscalerOptions"]["securityContext"]]:
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    for name, container in [*containers(PLAIN), ("autoscaler", PLAIN["rayClusterSpec"]["autoscalerOptions"])]:
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


def test_the_network_policy_holds_for_every_pod_and_keeps_them_from_the_metadata_service():
    policy = document("kuberay/network-policy.yaml", "NetworkPolicy")["spec"]
    wanted = policy["podSelector"]["matchLabels"].items()
    assert all(pod["metadata"]["labels"].items() >= wanted for pod in pods_of(PLAIN).values())
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (world,) = [t["ipBlock"] for rule in policy["egress"] for t in rule["to"] if "ipBlock" in t]
    assert world["except"] == ["169.254.169.254/32"]
    exported = {g["rayStartParams"]["metrics-export-port"] for g in groups_of(PLAIN).values()}
    opened = {str(p["port"]) for rule in policy["ingress"] for p in rule.get("ports", [])}
    assert opened == exported | {"8265"}
