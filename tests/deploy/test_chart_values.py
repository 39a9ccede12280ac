"""Tests that each value of the chart is described and checked, and that errors name the wrong value."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.config.settings import Settings, load_settings
from tests.deploy.chart import CHART, VALUE_SETS, Chart, Refused
from tests.deploy.chart_reference import (
    CHART_SETS,
    read_values,
    render_readme,
    render_schema,
    schema_text,
)

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
#: Values that coturn and STUNner need in addition to being enabled.
TURN = {"turn": {"existingSecret": "turn"}}


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of the schema that has properties, with its path."""
    if "properties" in schema:
        yield path, schema
        for name, child in schema["properties"].items():
            yield from objects(child, f"{path}.{name}".lstrip("."))
    if isinstance(schema.get("items"), dict):
        yield from objects(schema["items"], f"{path}[]")


def test_there_are_value_sets_for_every_way_to_install() -> None:
    assert len(VALUE_SETS) >= 8


def test_the_readme_and_the_schema_say_what_values_yaml_says() -> None:
    values = read_values((CHART / "values.yaml").read_text())
    readme = (CHART / "README.md").read_text()
    hint = "run: make chart"
    assert readme == render_readme(readme, values), hint
    assert (CHART / "values.schema.json").read_text() == schema_text(render_schema(SCHEMA, values)), hint


def test_the_chart_is_of_the_version_of_the_project() -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert described["version"] == described["appVersion"] == project["version"]


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(ValueError, match=r"pod\.port has no description"):
        read_values("# -- A name.\nname: x\npod:\n  port: 1\n")


def test_the_schema_allows_nothing_that_it_does_not_know() -> None:
    open_objects = [
        path for path, schema in objects(SCHEMA) if schema.get("additionalProperties", True) is True
    ]
    # `resources` is a part of a Kubernetes object; Kubernetes itself checks it. A parent chart shares all its
    # global values with its subcharts.
    assert [path for path in open_objects if path not in ("resources", "global")] == []
    undescribed = [
        f"{path}.{name}"
        for path, schema in objects(SCHEMA)
        if "[]" not in path and path != "resources"
        for name, child in schema["properties"].items()
        if "description" not in child and "properties" not in child
    ]
    assert undescribed == []


def test_every_setting_of_the_service_can_be_set() -> None:
    all_settings = {name.upper() for name in Settings.model_fields}
    assert all_settings >= CHART_SETS
    assert set(SCHEMA["properties"]["settings"]["properties"]) == all_settings - CHART_SETS


@pytest.mark.parametrize("name", VALUE_SETS)
def test_lint_has_nothing_to_say(chart: Chart, name: str) -> None:
    done = chart.run("lint", "--strict", str(chart.folder), "-f", str(CHART / "ci" / f"{name}-values.yaml"))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicaCount": "two"}, "replicaCount: Invalid type. Expected: integer, given: string"),
        ({"replicaCount": -1}, "replicaCount: Must be greater than or equal to 0"),
        ({"replicaCuont": 2}, "Additional property replicaCuont is not allowed"),
        ({"image": {"name": "x"}}, "image: Additional property name is not allowed"),
        ({"gpu": {"device": "rocm"}}, 'gpu.device must be one of the following: "cuda", "tensorrt"'),
        ({"settings": {"WORKERZ": 2}}, "settings: Additional property WORKERZ is not allowed"),
        ({"settings": {"WORKERS": 65}}, "settings.WORKERS: Must be less than or equal to 64"),
        ({"settings": {"LOG_LEVEL": "loud"}}, 'one of the following: "debug", "info", "warning", "error"'),
        ({"settings": {"API_KEYS": "x"}}, "settings: Additional property API_KEYS is not allowed"),
        ({"auth": {"apiKeys": ["a,b,c,d,e"]}}, "auth.apiKeys.0: Does not match pattern"),
        ({"s3": {"bucket": "Not A Bucket"}}, "s3.bucket: Does not match pattern"),
        ({"s3": {"endpointUrl": "minio:9000"}}, "s3.endpointUrl: Does not match pattern"),
        ({"ingress": {"controller": "traefik"}}, '"nginx", "haproxy", "haproxy-ingress", "none"'),
        (
            {"autoscaling": {"method": "both"}},
            'autoscaling.method must be one of the following: "hpa", "keda"',
        ),
        ({"autoscaling": {"hpa": {"enabled": True}}}, "autoscaling: Additional property hpa is not allowed"),
        ({"persistence": {"models": {"size": "big"}}}, "persistence.models.size: Does not match pattern"),
        ({"networkPolicy": {"s3CIDRs": ["10.0.0.1"]}}, "networkPolicy.s3CIDRs.0: Does not match pattern"),
        ({"webrtc": {"udpPortRange": "80-90"}}, "webrtc.udpPortRange: Does not match pattern"),
        ({"terminationGracePeriodSeconds": 30}, "is 30 and the drain takes up to 48 seconds"),
        ({"drain": {"timeoutSeconds": 60}}, "is 60 and the drain takes up to 88 seconds"),
        ({"autoscaling": {"enabled": True, "method": "keda"}}, "autoscaling.keda.prometheusAddress is empty"),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}},
            "autoscaling.maxReplicas is 2, less than autoscaling.minReplicas, 5",
        ),
        ({"models": {"v1": "x.onnx"}}, "models.v1 is x.onnx, relative to persistence.models.mountPath"),
        ({"awsCredentials": {"accessKeyId": "dummy"}}, "awsCredentials.secretAccessKey is empty"),
        (
            {"sampling": {"enabled": False, "store": "s3"}},
            "sampling.store is s3 and sampling.enabled is false",
        ),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
        ({"istio": {"split": {"v1": 90, "v2": 20}}}, "are 90 and 20: together they must be 100"),
        ({"coturn": {"enabled": True}}, "needs webrtc.turn.existingSecret"),
        ({"coturn": {"enabled": True}, "webrtc": TURN}, "coturn.host is empty"),
        (
            {"coturn": {"enabled": True, "host": "turn.example.org"}, "webrtc": TURN},
            "coturn.podCIDRs is empty",
        ),
        ({"coturn": {"enabled": True}, "stunner": {"enabled": True}}, "one TURN server is enough"),
        ({"stunner": {"enabled": True}, "webrtc": TURN}, "stunner.host is empty"),
        ({"coturn": {"enabled": True}, "webrtc": {"enabled": False}}, "webrtc.enabled is false"),
        ({"gpu": {"enabled": True}, "settings": {"DEVICE": "cpu"}}, "set gpu.device instead"),
        (
            {"settings": {"WORKERS": 2}, "extraEnv": [{"name": "WORKERS", "value": "3"}]},
            "extraEnv has WORKERS, which the chart sets already",
        ),
        ({"extraEnv": [{"name": "HOST", "value": "::"}]}, "extraEnv has HOST, which the chart sets already"),
        (
            {"sampling": {"store": "s3"}, "networkPolicy": {"s3CIDRs": ["169.254.169.254/32"]}},
            "in which clouds keep their metadata",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(chart: Chart, values: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as caught:
        chart.render(values)
    assert said in str(caught.value)


def test_a_package_without_rules_or_dashboard_says_so(chart: Chart, tmp_path: Path) -> None:
    for part, name in (("prometheusRule", "alerts.yaml"), ("dashboard", "dashboard.json")):
        changed = chart.copied(tmp_path / part)
        (changed.folder / "files" / name).unlink()
        with pytest.raises(Refused, match=rf"files/{name} is missing"):
            changed.render({"monitoring": {part: {"enabled": True}}})


def test_who_may_use_the_service_must_be_said(chart: Chart) -> None:
    with pytest.raises(
        Refused,
        match=r"auth\.existingSecret, auth\.keysFileSecret or auth\.apiKeys, or settings\.JWT_JWKS, "
        r"or auth\.allowAnonymous=true",
    ):
        chart.render({"auth": {}})
    for auth in ({"allowAnonymous": True}, {"existingSecret": "keys"}, {"apiKeys": ["dummy-key-1"]}):
        environment = chart.render({"auth": auth}).environment
        assert environment["ALLOW_ANONYMOUS"] == ("true" if "allowAnonymous" in auth else "false")
        assert ("API_KEYS" in environment) is ("allowAnonymous" not in auth)
    tokens = chart.render({"auth": {}, "settings": {"JWT_JWKS": "https://issuer.example/keys"}}).environment
    assert (tokens["ALLOW_ANONYMOUS"], tokens["JWT_JWKS"]) == ("false", "https://issuer.example/keys")


def test_a_file_of_keys_is_mounted_as_its_secret_changes(chart: Chart) -> None:
    manifests = chart.render({"auth": {"keysFileSecret": "named-keys"}})
    path = Path(manifests.environment["API_KEYS_FILE"])
    (mount,) = [mount for mount in manifests.container["volumeMounts"] if mount["name"] == "keys"]
    (volume,) = [volume for volume in manifests.pod["volumes"] if volume["name"] == "keys"]
    assert (mount["mountPath"], "subPath" in mount, mount["readOnly"]) == (str(path.parent), False, True)
    assert volume["secret"] == {"secretName": "named-keys", "defaultMode": 0o440}
    assert path.name == "keys.toml"


def test_the_service_answers_under_the_names_that_lead_to_it(chart: Chart) -> None:
    own = "test-real-time-vision-api.vision"
    always = {own, f"{own}.svc", "*.svc.cluster.local"}
    hosts = ["detect.example.org", "*.example.net"]
    for values, expected in (
        ({}, always),
        ({"ingress": {"enabled": True, "hosts": hosts}}, always | set(hosts)),
        ({"ingress": {"enabled": True}}, {"*"}),
        ({"ingress": {"enabled": True}, "settings": {"ALLOWED_HOSTS": "a.example"}}, {"a.example"}),
    ):
        environment = chart.render(values).environment
        assert set(environment["ALLOWED_HOSTS"].split(",")) == expected
        assert load_settings(allowed_hosts=environment["ALLOWED_HOSTS"]).hosts > expected


def test_metrics_may_have_a_port_that_only_prometheus_reaches(chart: Chart) -> None:
    values = {"monitoring": {"metricsPort": 9102, "serviceMonitor": {"enabled": True}}}
    values |= {"networkPolicy": {"enabled": True, "prometheusNamespaces": ["monitoring"]}}
    manifests = chart.render(values)
    assert manifests.environment["METRICS_PORT"] == "9102"
    ports = {port["name"]: port["containerPort"] for port in manifests.container["ports"]}
    assert ports["metrics"] == 9102
    served = {port["name"]: port["targetPort"] for port in manifests.one("Service")["spec"]["ports"]}
    assert served == {"http": "http", "metrics": "metrics"}
    (endpoint,) = manifests.one("ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    rules = manifests.one("NetworkPolicy")["spec"]["ingress"]
    (rule,) = [rule for rule in rules if {"protocol": "TCP", "port": "metrics"} in rule["ports"]]
    assert len(rule["from"]) == 1
    assert "monitoring" in str(rule["from"][0]["namespaceSelector"])
    (public,) = [rule for rule in rules if {"protocol": "TCP", "port": "http"} in rule["ports"]]
    assert "monitoring" not in str(public["from"]), "it has no business at the public port any more"


def test_a_public_service_has_no_port_of_the_metrics(chart: Chart) -> None:
    values = {"monitoring": {"metricsPort": 9102, "serviceMonitor": {"enabled": True}}}
    manifests = chart.render(values | {"service": {"type": "LoadBalancer"}})
    assert [port["name"] for port in manifests.one("Service")["spec"]["ports"]] == ["http"]
    service = manifests.one("Service", "-metrics")
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["selector"] == manifests.workload["spec"]["selector"]["matchLabels"]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["metrics"]
    monitor = manifests.one("ServiceMonitor")["spec"]
    found = [
        each
        for each in manifests.of("Service")
        if monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert found == [service]
    (endpoint,) = monitor["endpoints"]
    job = {"targetLabel": "job", "replacement": manifests.one("Service")["metadata"]["name"]}
    assert endpoint["relabelings"] == [job], "alerts and dashboard know the job by this name"


def test_openshift_may_choose_the_users_of_all_pods(chart: Chart) -> None:
    specifications = list(chart.render(None, "openshift").pod_specifications())
    assert len(specifications) == 3, "the service, coturn and the test of helm"
    for specification in specifications:
        assert specification["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_clusters_with_ipv6_listen_on_both_families(chart: Chart) -> None:
    assert chart.render().environment["HOST"] == "0.0.0.0"  # noqa: S104 - what pods listen on
    assert chart.render({"listenAddress": "::"}).environment["HOST"] == "::"
    for service in ({"ipFamilies": ["IPv6"]}, {"ipFamilyPolicy": "PreferDualStack"}):
        assert chart.render({"service": service}).environment["HOST"] == "::"
    with pytest.raises(Refused, match="listenAddress"):
        chart.render({"listenAddress": "::1"})
