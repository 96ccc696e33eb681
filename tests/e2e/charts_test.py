# SPDX-License-Identifier: Apache-2.0
"""The chart and the kustomizations: rendered, compared with golden files,
validated strictly against several versions of Kubernetes, and checked for what
no schema knows. LIMPID_UPDATE_GOLDEN=1 writes the golden files anew, and the part
of values.schema.json that the server's configuration decides."""
import functools
import json
import os
import re
import subprocess

import kubernetes_validate
import pytest
import yaml
from conftest import BUILD, ROOT
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

CHART = ROOT / "deploy" / "helm" / "limpid"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
KUBE = ROOT / ".deps" / "kube"
GOLDEN = ROOT / "tests" / "e2e" / "golden"
VERSIONS = ["1.27", "1.29", "1.31", "1.33", "1.35", "1.37"]
# Kinds of operators, which Kubernetes' own schemas do not know.
OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}

SECRETS = ["tls.secretName=limpid-tls", "tls.clientCertificates=true",
           "tokens.secretName=limpid-tokens"]
CASES = {
    "default": [],
    "gpu": ["gpu.enabled=true", "models.source=pvc",
            "models.pvc.claimName=models", "autoscaling.kind=hpa",
            "autoscaling.metric=queue-seconds", "autoscaling.target=500m",
            "monitoring.serviceMonitor.enabled=true",
            "monitoring.rules.enabled=true",
            "monitoring.dashboard.enabled=true",
            "gateway.options={tls,rate-limit}",
            "gateway.filesSecretName=edge", *SECRETS],
    "image-volume": ["models.source=image",
                     "models.image.reference=registry.example/models:1",
                     "autoscaling.kind=keda",
                     "config.limits.max_tokens=8192",
                     "config.startup_models={sentiment-mamba}"],
    "init": ["models.source=init", "models.init.image=amazon/aws-cli:2.22.0",
             "models.init.command={aws,s3,sync,s3://bucket/models,/models}",
             "gateway.enabled=false", "autoscaling.kind=hpa",
             "podDisruptionBudget.enabled=false",
             "networkPolicy.callers[0].podSelector.matchLabels.uses=limpid"],
}
OVERLAYS = ["cpu", "gpu", "gateway"]


def helm(*arguments):
    return subprocess.run([KUBE / "helm", *arguments], text=True,
                          capture_output=True)


@functools.cache
def chart(case):
    sets = [word for value in CASES[case] for word in ("--set", value)]
    done = helm("template", "release", CHART, "--namespace", "space", *sets)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def overlay(name):
    folder = KUSTOMIZE / "overlays" / name if name != "monitoring" else \
        ROOT / "deploy" / "monitoring"
    done = subprocess.run([KUBE / "kubectl", "kustomize", folder], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one]


RENDERED = [*(f"chart-{case}" for case in CASES),
            *(f"overlay-{name}" for name in OVERLAYS), "overlay-monitoring"]


def render(name):
    kind, _, rest = name.partition("-")
    return chart(rest) if kind == "chart" else overlay(rest)


def of_kind(name, kind):
    return [one for one in objects(render(name)) if one["kind"] == kind]


def pods(name):
    return [(one["metadata"]["name"], one["spec"]["template"])
            for one in of_kind(name, "Deployment")]


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_as_before(name):
    text = render(name)
    # Long files of ours that come through unchanged.
    for file in ("monitoring/dashboard.json", "gateway/envoy.yaml"):
        content = (ROOT / "deploy" / file).read_text()
        content = content.replace("address: limpid,",
                                  "address: release-limpid-servers,")
        indented = "".join(f"    {line}" if line.strip() else line
                           for line in content.splitlines(keepends=True))
        text = text.replace(indented.rstrip(), f"    ({file})")
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("LIMPID_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_valid_for_kubernetes(name, version):
    if name == "chart-image-volume" and version < "1.31":
        # Image volumes are that young: the schema must say so.
        with pytest.raises(kubernetes_validate.ValidationError):
            validate(name, version)
    else:
        assert validate(name, version) > 0


def validate(name, version):
    validated = 0
    for one in objects(render(name)):
        if one["kind"] not in OPERATORS:
            kubernetes_validate.validate(one, version, strict=True)
            validated += 1
    return validated or name == "overlay-monitoring"


def test_kserve_examples_have_a_valid_pod():
    runtime, = objects((ROOT / "deploy/kserve/serving-runtime.yaml").read_text())
    service, = objects(
        (ROOT / "deploy/kserve/inference-service.yaml").read_text())
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
           "spec": {"containers": runtime["spec"]["containers"]}}
    for version in VERSIONS:
        kubernetes_validate.validate(pod, version, strict=True)
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == \
        runtime["spec"]["supportedModelFormats"][0]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


@pytest.mark.parametrize("values", [
    "replica=3", "gpu.enable=true", "config.limits.max_token=5",
    "config.listen=0.0.0.0:1", "models.source=pcv", "replicas=-1",
    "autoscaling.kind=vpa", "gateway.replica=1", "autoscaling.target=8 "])
def test_misspelt_values_are_refused(values):
    done = helm("template", "release", CHART, "--set", values)
    assert done.returncode != 0
    word = values.partition("=")[0].rpartition(".")[2]
    assert word in done.stderr


@pytest.mark.parametrize("values,missing", [
    ("models.source=pvc", "models.pvc.claimName"),
    ("models.source=image", "models.image.reference"),
    ("models.source=init", "models.init.image"),
    ("gateway.options={tls}", "gateway.filesSecretName")])
def test_what_is_missing_is_named(values, missing):
    done = helm("template", "release", CHART, "--set", values)
    assert done.returncode != 0 and missing in done.stderr


def test_lint():
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


# What the chart decides by itself of the server's configuration.
CHARTS_OWN = {"model_repository", "listen", "health", "metrics", "tls",
              "token_file", "allow_plaintext", "drain_seconds"}


def config_schema(messages, message, without=()):
    """JSON schema of a message of the configuration."""
    properties = {}
    for field in message.field:
        if field.name in without:
            continue
        if field.type == field.TYPE_MESSAGE:
            one = config_schema(
                messages, messages[field.type_name.rpartition(".")[2]])
        else:
            one = {"type": {field.TYPE_BOOL: "boolean",
                            field.TYPE_STRING: "string",
                            field.TYPE_DOUBLE: "number"}.get(
                                field.type, "integer")}
        if field.label == field.LABEL_REPEATED:
            one = {"type": "array", "items": one}
        properties[field.name] = one
    return {"type": "object", "additionalProperties": False,
            "properties": properties}


def test_config_values_are_the_servers(tmp_path):
    described = tmp_path / "set.pb"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}",
                        f"--descriptor_set_out={described}",
                        "limpid/config/v1/server_config.proto"]) == 0
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(described.read_bytes())
    messages = {one.name: one for one in files.file[0].message_type}
    made = config_schema(messages, messages["ServerConfig"], CHARTS_OWN)
    file = CHART / "values.schema.json"
    schema = json.loads(file.read_text())
    if os.environ.get("LIMPID_UPDATE_GOLDEN"):
        schema["properties"]["config"] = made
        file.write_text(json.dumps(schema, indent=1) + "\n")
    assert schema["properties"]["config"] == made


def server_configs(name):
    return [one["data"]["server.config.json"]
            for one in of_kind(name, "ConfigMap")
            if "server.config.json" in one["data"]]


@pytest.mark.parametrize("name", [
    "chart-default", "chart-image-volume", "chart-init", "overlay-cpu"])
def test_the_server_takes_its_configuration(name, tmp_path):
    config, = server_configs(name)
    file = tmp_path / "server.config.json"
    file.write_text(config)
    done = subprocess.run(
        [BUILD / "bin" / "limpid-server", "--config", file,
         "--model-repository", ROOT / "models", "--print-config"],
        text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["listen"] == "0.0.0.0:50051"
    if name == "chart-image-volume":
        assert printed["limits"]["max_tokens"] == 8192
        assert printed["startup_models"] == ["sentiment-mamba"]


def test_secrets_reach_the_configuration():
    config = json.loads(server_configs("chart-gpu")[0])
    assert config["tls"]["client_ca_file"] == "/etc/limpid/tls/ca.crt"
    assert config["token_file"] == "/etc/limpid/tokens/tokens"
    assert "allow_plaintext" not in config
    _, pod = next(pod for pod in pods("chart-gpu")
                  if pod[0] == "release-limpid")
    mounted = {mount["mountPath"] for mount in
               pod["spec"]["containers"][0]["volumeMounts"]}
    for path in (config["token_file"], config["tls"]["client_ca_file"]):
        assert path.rpartition("/")[0] in mounted


@pytest.mark.parametrize("case", ["default", "gpu"])
def test_envoy_takes_its_configuration(case, tmp_path):
    config, = [one["data"]["envoy.yaml"] for one in
               of_kind(f"chart-{case}", "ConfigMap")
               if "envoy.yaml" in one["data"]]
    assert "address: release-limpid-servers, port_value: 50051" in config
    for word in ("/etc/limpid/tls/ca.crt", "/etc/limpid/edge/tls.key",
                 "sni: release-limpid-servers", "LocalRateLimit"):
        assert (word in config) == (case == "gpu"), word
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x",
                    "-keyout", "tls.key", "-out", "tls.crt"], cwd=tmp_path,
                   check=True, capture_output=True)
    (tmp_path / "ca.crt").write_bytes((tmp_path / "tls.crt").read_bytes())
    (tmp_path / "envoy.yaml").write_text(
        config.replace("/etc/limpid/tls/", "").replace(
            "/etc/limpid/edge/", ""))
    (tmp_path / "limpid.pb").write_bytes(
        (BUILD / "gateway" / "limpid.pb").read_bytes())
    done = subprocess.run(
        [ROOT / ".deps/e2e/bin/envoy", "--disable-hot-restart", "--mode",
         "validate", "-c", "envoy.yaml"], cwd=tmp_path, text=True,
        capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_changed_configuration_rolls_the_pods():
    def checksum(*values):
        done = helm("template", "release", CHART, *values)
        return set(re.findall(r"checksum/config: (\w{64})", done.stdout))
    before, after = checksum(), checksum("--set", "config.limits.max_tokens=99")
    assert len(before) == 2 and len(before & after) == 1


@pytest.mark.parametrize("name", RENDERED[:-1])
def test_pods_are_confined(name):
    for _, template in pods(name):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"]["type"] == \
            "RuntimeDefault"
        for container in pod["containers"] + pod.get("initContainers", []):
            rules = container["securityContext"]
            assert rules["readOnlyRootFilesystem"]
            assert not rules["allowPrivilegeEscalation"]
            assert rules["capabilities"] == {"drop": ["ALL"]}
        for container in pod["containers"]:
            assert "memory" in container["resources"]["limits"]
    for account in of_kind(name, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", RENDERED[:-1])
def test_pods_outlive_their_drain(name):
    for _, template in pods(name):
        pod, container = template["spec"], template["spec"]["containers"][0]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        if container["name"] == "server":
            # The server is gone 15 s after SIGTERM.
            needed = int(command[1]) + 15
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["grpc"]["port"] == 50052
        else:
            assert command[0] == "drain-envoy"
            drain = container["args"][container["args"].index(
                "--drain-time-s") + 1]
            assert int(drain) <= int(command[1])
            needed = int(command[1])
        assert pod["terminationGracePeriodSeconds"] > needed


def matches(selector, labels):
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    return True


@pytest.mark.parametrize("name", RENDERED[:-1])
def test_names_lead_somewhere(name):
    everything = objects(render(name))
    templates = [template for _, template in pods(name)]
    labels = [template["metadata"]["labels"] for template in templates]
    named = {(one["kind"], one["metadata"]["name"]) for one in everything}
    for one in everything:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            chosen = [template for template in templates if matches(
                {"matchLabels": spec["selector"]},
                template["metadata"]["labels"])]
            assert len(chosen) == 1
            ports = {port["name"] for port in
                     chosen[0]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif one["kind"] == "PodDisruptionBudget":
            assert sum(matches(spec["selector"], own) for own in labels) == 1
        elif one["kind"] == "NetworkPolicy":
            assert sum(matches(spec["podSelector"], own) for own in labels) == 1
            assert spec["policyTypes"] == ["Ingress", "Egress"]
        elif one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert ("Deployment", spec["scaleTargetRef"]["name"]) in named
        elif one["kind"] == "ServiceMonitor":
            services = [service for service in everything
                        if service["kind"] == "Service" and matches(
                            spec["selector"], service["metadata"]["labels"])]
            assert len(services) == 2
            for service in services:
                assert spec["endpoints"][0]["port"] in {
                    port["name"] for port in service["spec"]["ports"]}
    for template in templates:
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"] + pod.get("initContainers", []):
            for mount in container["volumeMounts"]:
                assert mount["name"] in volumes
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in named
        assert ("ServiceAccount", pod["serviceAccountName"]) in named


@pytest.mark.parametrize("name", ["chart-default", "chart-gpu",
                                  "overlay-gateway"])
def test_the_gateway_may_call_the_servers(name):
    gateway = next(template for _, template in pods(name)
                   if template["spec"]["containers"][0]["name"] == "envoy")
    servers = next(policy for policy in of_kind(name, "NetworkPolicy")
                   if not policy["metadata"]["name"].endswith("gateway"))
    allowed = [source["podSelector"] for rule in servers["spec"]["ingress"]
               for source in rule["from"]
               if "podSelector" in source and
               rule["ports"][0]["port"] == "grpc"]
    assert any(matches(selector, gateway["metadata"]["labels"])
               for selector in allowed)


def test_autoscalers_ask_for_metrics_that_the_adapter_makes():
    adapter = yaml.safe_load(
        (ROOT / "deploy/monitoring/prometheus-adapter.yaml").read_text())
    made = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    asked = {metric["pods"]["metric"]["name"]
             for name in ("chart-gpu", "chart-init")
             for scaler in of_kind(name, "HorizontalPodAutoscaler")
             for metric in scaler["spec"]["metrics"]}
    assert asked == made
    assert "replicas" not in of_kind("chart-init", "Deployment")[0]["spec"]


def test_gpus_are_asked_for_and_tolerated():
    for name in ("chart-gpu", "overlay-gpu"):
        server = next(template["spec"] for _, template in pods(name)
                      if template["spec"]["containers"][0]["name"] == "server")
        container = server["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert "server-cuda" in container["image"]
        assert any(one["key"] == "nvidia.com/gpu"
                   for one in server["tolerations"])


def test_one_version_everywhere():
    version = re.search(r"project\(limpid VERSION ([0-9.]+)",
                        (ROOT / "CMakeLists.txt").read_text())[1]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == version
    images = [container["image"] for name in RENDERED[:-1]
              for _, template in pods(name)
              for container in template["spec"]["containers"]]
    runtime = (ROOT / "deploy/kserve/serving-runtime.yaml").read_text()
    images += re.findall(r"image: (\S+)", runtime)
    assert {image.partition(":")[2] for image in images} == {version}


def test_the_same_configuration_in_image_and_kustomization():
    assert (ROOT / "docker/server.config.json").read_text() == \
        (KUSTOMIZE / "base/server.config.json").read_text()
