"""The manifests must be valid for Kubernetes, fit together, and leave nothing open."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from suffuse.autoscale.exporter import Exporter

FOLDER = Path("docker/kubernetes")
VERSIONS = ("1.29", kubernetes_validate.latest_version())


def resources(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def kustomization() -> dict[str, Any]:
    return resources(FOLDER / "kustomization.yaml")[0]


def applied() -> Iterator[dict[str, Any]]:
    for name in kustomization()["resources"]:
        yield from resources(FOLDER / name)


def only(kind: str) -> dict[str, Any]:
    (found,) = (resource for resource in applied() if resource["kind"] == kind)
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = only("Deployment")["spec"]["template"]["spec"]
    return spec


def containers() -> dict[str, dict[str, Any]]:
    return {container["name"]: container for container in pod()["containers"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", sorted(set(FOLDER.glob("*.yaml")) - {FOLDER / "kustomization.yaml"}), ids=str)
def test_resources_are_strictly_valid(path: Path, version: str) -> None:
    found = resources(path)

    assert found
    for resource in found:
        kubernetes_validate.validate(resource, version, strict=True)


def test_validation_would_notice_a_field_that_does_not_exist() -> None:
    deployment = only("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def test_every_manifest_is_applied_but_the_example_of_a_secret() -> None:
    names = set(kustomization()["resources"])
    generated = {name for generator in kustomization()["configMapGenerator"] for name in generator["files"]}

    assert names == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert all((FOLDER / name).is_file() for name in generated)


def test_labels_select_the_pods() -> None:
    labels = only("Deployment")["spec"]["template"]["metadata"]["labels"].items()

    selectors = [resource["spec"]["selector"] for resource in applied() if resource["kind"] == "Service"]
    selectors += [only(kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors += [only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]

    assert all(selector and selector.items() <= labels for selector in selectors)


def test_ports_that_are_named_exist() -> None:
    ports = {port["name"] for container in containers().values() for port in container.get("ports", ())}

    named = {port["targetPort"] for item in applied() if item["kind"] == "Service" for port in item["spec"]["ports"]}
    named |= {port["port"] for rule in only("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]}
    haproxy = containers()["haproxy"]
    named |= {haproxy["readinessProbe"]["httpGet"]["port"], haproxy["livenessProbe"]["tcpSocket"]["port"]}

    assert named <= ports


def test_volumes_and_secrets_that_are_mounted_exist() -> None:
    volumes = {volume["name"] for volume in pod()["volumes"]}
    secret = resources(FOLDER / "secret.example.yaml")[0]
    (mounted,) = (volume["secret"] for volume in pod()["volumes"] if "secret" in volume)
    (token,) = containers()["haproxy"]["env"]

    assert {mount["name"] for one in containers().values() for mount in one["volumeMounts"]} == volumes
    assert mounted["secretName"] == token["valueFrom"]["secretKeyRef"]["name"] == secret["metadata"]["name"]
    assert {mounted["items"][0]["key"], token["valueFrom"]["secretKeyRef"]["key"]} == set(secret["stringData"])


def test_pods_scale_by_a_metric_that_the_autoscaler_has() -> None:
    exported = {metric.name for metric in Exporter("m", ("http://s",)).registry.collect()}
    (metric,) = only("HorizontalPodAutoscaler")["spec"]["metrics"]
    target = only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]

    assert metric["pods"]["metric"]["name"] in exported
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": only("Deployment")["metadata"]["name"]}
    assert "replicas" not in only("Deployment")["spec"]  # applied anew, it would undo what the autoscaler decided


def test_goal_of_workers_a_pod_lies_within_the_bounds_of_a_pod() -> None:
    (bounds,) = (part for part in containers()["autoscaler"]["args"] if part.startswith("--workers="))
    low, high = map(int, bounds.removeprefix("--workers=").split(":"))
    (metric,) = only("HorizontalPodAutoscaler")["spec"]["metrics"]

    assert low <= int(metric["pods"]["target"]["averageValue"]) < high


def test_every_container_is_restricted() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    for container in containers().values():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} == set(container["resources"]["limits"]) == set(container["resources"]["requests"])


def test_nothing_but_haproxy_and_metrics_listens_outside_the_pod() -> None:
    arguments = containers()["torchserve"]["args"]

    assert not any(part.startswith(("--host", "--management-host")) for part in arguments)
    assert only("NetworkPolicy")["spec"]["egress"] == []
    open_to_all = [rule["ports"] for rule in only("NetworkPolicy")["spec"]["ingress"] if "from" not in rule]
    assert open_to_all == [[{"port": "api"}]]


def test_a_pod_has_time_to_drain() -> None:
    from docker.drain import LIMIT_S

    grace_s = pod()["terminationGracePeriodSeconds"]

    assert grace_s >= LIMIT_S + 20  # then TorchServe's own end
    assert containers()["torchserve"]["lifecycle"]["preStop"]["exec"]["command"] == ["python", "/opt/suffuse/drain.py"]
