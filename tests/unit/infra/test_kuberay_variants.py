"""The options of infra/kuberay: components of the job, clusters that stay, networks, monitoring."""

import re

import pytest
import yaml

from featray.graph.metrics import METRICS
from tests.fixtures.infra_files import INFRA
from tests.fixtures.manifests import built, one, quantity

FOLDER = INFRA / "kuberay"
PLAIN = one(built("job"), "RayJob")
NETWORKS = ("network/cilium", "network/gke", "network/eks-pod-identity", "network/in-cluster-s3")


def cluster_of(*components):
    return one(built("job", *components), "RayJob")["spec"]["rayClusterSpec"]


def test_every_folder_is_named_where_it_is_switched_on():
    """Every file is also part of something that can be built."""
    listed = {
        (path.parent / line).resolve()
        for path in FOLDER.rglob("kustomization.yaml")
        for line in re.findall(r"^ *(?:# )?- ([\w./-]+)", path.read_text(), re.M)
    }
    for path in FOLDER.rglob("kustomization.yaml"):
        folders = {FOLDER, FOLDER / "job", FOLDER / "existing/job", FOLDER / "existing/cluster", FOLDER / "kueue"}
        assert path.parent in folders | listed, path
        texts = path.read_text()
        for file in path.parent.iterdir():
            assert file.is_dir() or file == path or file.name in texts, file


def test_sizes_are_written_down_once():
    sizes = yaml.safe_load((FOLDER / "job/sizes.yaml").read_text())["data"]
    used = re.findall(r"data\.([\w-]+)\}", (FOLDER / "components/sizes/kustomization.yaml").read_text())
    assert sorted(used) == sorted(sizes)
    groups = yaml.safe_load((FOLDER / "job/rayjob.yaml").read_text())["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    numbers = [str(group["maxReplicas"]) for group in groups]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        numbers += container["resources"]["limits"].values()
        numbers += [
            v for k, v in group["rayStartParams"].items() if k in ("num-cpus", "num-gpus", "object-store-memory")
        ]
    assert set(numbers) == {"0"}


def test_changed_sizes_reach_every_place():
    gpu8 = cluster_of("../components/gpu8")["workerGroupSpecs"][1]
    patch = yaml.safe_load((FOLDER / "components/gpu8/kustomization.yaml").read_text())["patches"][0]["patch"]
    wanted = yaml.safe_load(patch)["data"]
    (container,) = gpu8["template"]["spec"]["containers"]
    assert gpu8["maxReplicas"] == int(wanted["infer-nodes"])
    assert gpu8["rayStartParams"]["num-gpus"] == container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert (
        container["resources"]["requests"]
        == container["resources"]["limits"]
        == {
            "cpu": wanted["infer-pod-cpus"],
            "memory": wanted["infer-memory"],
            "ephemeral-storage": wanted["infer-disk"],
            "nvidia.com/gpu": wanted["infer-gpus"],
        }
    )


def test_spot_is_for_workers_and_no_must():
    def keys(terms):
        return {e["key"]: (e["operator"], e["values"][0]) for term in terms for e in term["matchExpressions"]}

    job = one(built("job", "../components/spot"), "RayJob")["spec"]
    cluster = job["rayClusterSpec"]
    preferred = set()
    for group in cluster["workerGroupSpecs"]:
        (affinity,) = group["template"]["spec"]["affinity"].values()
        assert list(affinity) == ["preferredDuringSchedulingIgnoredDuringExecution"], "on demand will do"
        terms = [one["preference"] for one in affinity["preferredDuringSchedulingIgnoredDuringExecution"]]
        preferred = keys(terms)
        tolerated = {t["key"] for t in group["template"]["spec"]["tolerations"]}
        assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated
    assert {t["key"] for t in cluster["workerGroupSpecs"][1]["template"]["spec"]["tolerations"]} >= {"nvidia.com/gpu"}
    for pod in (cluster["headGroupSpec"]["template"], job["submitterPodTemplate"]):
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        avoided = keys(required["nodeSelectorTerms"])
        assert avoided == {key: ("NotIn", value) for key, (_, value) in preferred.items()}
        assert len(required["nodeSelectorTerms"]) == 1, "all of them, since terms are alternatives"


def test_a_queued_run_has_its_full_size_at_once_and_fits_the_queue():
    job = one(built("job", "../components/kueue"), "RayJob")
    queue = one(built("kueue"), "LocalQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert queue["spec"]["clusterQueue"] == one(built("kueue"), "ClusterQueue")["metadata"]["name"]
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False and "autoscalerOptions" not in cluster
    pods = [(1, cluster["headGroupSpec"]["template"]), (1, job["spec"]["submitterPodTemplate"])]
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0
        pods.append((group["replicas"], group["template"]))
    (covered,) = one(built("kueue"), "ClusterQueue")["spec"]["resourceGroups"]
    (flavor,) = covered["flavors"]
    assert flavor["name"] == one(built("kueue"), "ResourceFlavor")["metadata"]["name"]
    quota = {entry["name"]: quantity(entry["nominalQuota"]) for entry in flavor["resources"]}
    assert set(covered["coveredResources"]) == set(quota)
    wanted = dict.fromkeys(quota, 0.0)
    for count, pod in pods:
        for name, amount in pod["spec"]["containers"][0]["resources"]["requests"].items():
            wanted[name] += count * quantity(amount)  # a resource without quota would never be admitted
    for name, amount in wanted.items():
        assert amount <= quota[name] <= amount * 1.1, name


def test_a_cluster_that_stays_is_the_job_s_own_and_the_job_finds_it():
    cluster, job = one(built("existing/cluster"), "RayCluster"), one(built("existing/job"), "RayJob")
    assert len(built("existing/cluster")) == len(built("existing/job")) == 1
    assert cluster["spec"] == PLAIN["spec"]["rayClusterSpec"]
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["metadata"] == PLAIN["metadata"], "two runs cannot overlap, whatever cluster they are on"
    kept = {"entrypoint", "backoffLimit", "submitterConfig", "submitterPodTemplate"}
    assert job["spec"].keys() == kept | {"clusterSelector"} and job["spec"]["backoffLimit"] == 0
    assert all(job["spec"][name] == PLAIN["spec"][name] for name in kept)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_adds_to_the_policy_and_takes_nothing_from_it(network):
    plain, built_with = built(""), built("", network)
    policies = [o for o in built_with if o["kind"].endswith("NetworkPolicy")]
    assert one(built_with, "NetworkPolicy", "featray") == one(plain, "NetworkPolicy")
    added = [policy for policy in policies if policy["metadata"]["name"] != "featray"]
    assert len(added) == 1 and len(built_with) == len(plain) + 1
    spec = added[0]["spec"]
    selector = spec.get("podSelector") or spec["endpointSelector"]
    assert selector["matchLabels"].items() >= {"app.kubernetes.io/name": "featray"}.items()
    assert "ingress" not in spec
    for rule in spec["egress"]:
        assert rule.get("ports") or rule.get("toPorts"), "no way out to every port"
        for peer in rule.get("to", []):
            assert "ipBlock" not in peer or peer["ipBlock"]["cidr"].endswith("/32")


def test_gke_gives_pods_google_s_accounts_and_no_others():
    for name in ("featray-head", "featray-worker"):
        account = one(built("", "network/gke"), "ServiceAccount", name)
        assert list(account["metadata"]["annotations"]) == ["iam.gke.io/gcp-service-account"]
        assert one(built(""), "ServiceAccount", name).keys() == account.keys()


def test_an_s3_server_in_the_cluster_is_told_to_every_pod_and_may_be_reached():
    objects = built("", "network/in-cluster-s3")
    given = one(objects, "ConfigMap", "featray-env")["data"]
    assert given.items() > one(built(""), "ConfigMap", "featray-env")["data"].items()
    namespace, port = re.fullmatch(r"http://\w+\.(\w+)\.svc\.cluster\.local:(\d+)", given["AWS_ENDPOINT_URL"]).groups()
    ((rule,),) = [o["spec"]["egress"] for o in objects if o["metadata"]["name"] == "featray-in-cluster-s3"]
    assert rule["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}
    assert [str(p["port"]) for p in rule["ports"]] == [port]


def test_all_of_them_go_together():
    assert len(built("", *NETWORKS, "monitoring")) == len(built("")) + len(NETWORKS) + 2


def test_prometheus_finds_the_port_of_every_pod_that_exports():
    monitor = one(built("", "monitoring"), "PodMonitor")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    cluster = PLAIN["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert labels.items() >= monitor["selector"]["matchLabels"].items()
        (container,) = group["template"]["spec"]["containers"]
        (port,) = [p["containerPort"] for p in container["ports"] if p["name"] == endpoint["port"]]
        assert str(port) == group["rayStartParams"]["metrics-export-port"]


RAY_OWN = {"ray_object_store_memory", "ray_resources", "ray_node_disk_usage", "ray_node_disk_free"}
"""Ray's own metrics; tests/integration/test_metrics.py finds them at its endpoint."""


def rules():
    (group,) = one(built("", "monitoring"), "PrometheusRule")["spec"]["groups"]
    return group["rules"]


def test_alerts_watch_metrics_and_tags_that_exist():
    exported = {name: metric for metric in METRICS for name in metric.exported}
    for rule in rules():
        named = set(re.findall(r"\bray_\w+", rule["expr"]))
        assert named and named <= exported.keys() | RAY_OWN, rule["alert"]
        for name, labels in re.findall(r"(ray_featray_\w+)\{([^}]*)\}", rule["expr"]):
            assert set(re.findall(r"(\w+)\s*=", labels)) <= set(exported[name].tags), rule["alert"]
        for group in re.findall(r"(?:by|on) \(([^)]*)\)", rule["expr"]):
            tags = {tag for name in named & exported.keys() for tag in exported[name].tags}
            assert group in tags | {"instance"}, rule["alert"]


def test_alerts_name_pages_and_settings_that_are_there():
    guide = (INFRA.parent / "docs/guides/operating.md").read_text()
    assert {rule["alert"] for rule in rules()} == set(re.findall(r"`(Featray[A-Z]\w+)`", guide))
    for rule in rules():
        for heading in re.findall(r'docs/guides/operating\.md, "([^"]+)"', rule["annotations"]["description"]):
            assert f"\n## {heading}\n" in guide
