# SPDX-License-Identifier: Apache-2.0
"""What .dockerignore lets into the images' build is enough to configure it: a
file that CMake has come to read would else be missed only by a build of an
image, which takes long."""
import fnmatch
import os
import shutil
import subprocess

from conftest import ROOT


def context():
    """Files that a build of an image sees. The last pattern that fits decides;
    a pattern fits a folder's files as well."""
    patterns = [line for line in
                (ROOT / ".dockerignore").read_text().splitlines()
                if line and not line.startswith("#")]
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        ignored = False
        for pattern in patterns:
            bare = pattern.removeprefix("!").removeprefix("**/")
            if fnmatch.fnmatch(name, bare) or name.startswith(bare + "/"):
                ignored = not pattern.startswith("!")
        if not ignored and (ROOT / name).is_file():
            yield name


def test_the_context_configures(tmp_path):
    source = tmp_path / "src"
    names = list(context())
    assert "CMakeLists.txt" in names and "README.md" not in names
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    done = subprocess.run(
        ["cmake", "-S", source, "-B", tmp_path / "build", "-G", "Ninja",
         "-DLIMPID_CUDA=OFF", "-DLIMPID_BUILD_TESTS=OFF",
         f"-DLIMPID_PYTHON_ENV={ROOT / '.deps/venv'}"],
        capture_output=True, text=True, env={**os.environ, "CUDACXX": ""})
    assert done.returncode == 0, done.stderr
    # And all that the Dockerfile takes from it by name is there.
    for line in (ROOT / "docker/Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            words = [word for word in line.split()[1:-1]
                     if not word.startswith("--")]
            for word in words:
                assert word == "." or (source / word).exists(), word
