# SPDX-License-Identifier: Apache-2.0
"""Where the training text comes from, and how it is split.

Source: the rated sentences of Hutto & Gilbert (ICWSM 2014), which the source
package of `vaderSentiment` 3.3.2 carries under the MIT licence. They are
fetched by package name and compared with a known sha256. The package's word
list is never read for training: it is independent truth for evaluation
(`held_out`).

The split is a function of the sentence alone, so that a sentence which occurs
twice cannot be in two parts, and so that every model family trained on this
data holds out the same sentences.
"""

import dataclasses
import hashlib
import html
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import unicodedata

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
ARCHIVE_SHA256 = (
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
)
INNER_ARCHIVE = (
    "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
)
# domain -> (file, number of rated texts in it)
DOMAINS = {
    "film": ("movieReviewSnippets_GroundTruth.txt", 10605),
    "product": ("amazonReviewSnippets_GroundTruth.txt", 3708),
    "tweet": ("tweets_GroundTruth.txt", 4200),
    "editorial": ("nytEditorialSnippets_GroundTruth.txt", 5190),
}


@dataclasses.dataclass(frozen=True)
class Rated:
    """One text with its mean human rating, -4 (worst) to 4 (best)."""

    text: str
    rating: float
    domain: str
    split: str  # "train", "dev" or "held-out"


def default_cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "limpid-train"


def fetch_archive(cache: pathlib.Path) -> bytes:
    """Bytes of the source package, downloaded by pip unless in `cache`."""
    path = cache / ARCHIVE
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--no-binary", ":all:", "--dest", str(cache), PACKAGE],
            check=True,
        )
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != ARCHIVE_SHA256:
        raise RuntimeError(
            f"{path}: sha256 is {digest}, expected {ARCHIVE_SHA256}; "
            "delete the file to fetch it again"
        )
    return content


def digest_of(text: str) -> int:
    folded = unicodedata.normalize("NFC", text).casefold()
    words = re.sub(r"\W+", "", folded)
    return int.from_bytes(hashlib.sha256(words.encode()).digest(), "big")


def split_of(text: str) -> str:
    """The part a text belongs to; case, spacing and punctuation don't count.

    h = sha256 of the NFC, case-folded word characters, as a big-endian
    integer; h mod 10 == 0 is held out, of the rest (h div 10) mod 10 == 0 is
    the dev part.
    """
    number = digest_of(text)
    if number % 10 == 0:
        return "held-out"
    return "dev" if number // 10 % 10 == 0 else "train"


def read_member(cache: pathlib.Path, name: str) -> bytes:
    """A file of the source package."""
    archive = tarfile.open(fileobj=io.BytesIO(fetch_archive(cache)))
    return archive.extractfile(name).read()


def load_rated(cache: pathlib.Path) -> list[Rated]:
    """All rated texts in the order of the files."""
    inner = tarfile.open(
        fileobj=io.BytesIO(read_member(cache, INNER_ARCHIVE)))
    rows = []
    for domain, (name, expected) in DOMAINS.items():
        content = inner.extractfile(f"hutto_ICWSM_2014/{name}").read()
        lines = [x for x in content.decode("utf-8-sig").split("\r\n") if x]
        if len(lines) != expected:
            raise RuntimeError(f"{name}: {len(lines)} lines, not {expected}")
        for line in lines:
            _, rating, text = line.split("\t")
            # Tweets hold HTML entities; film sentences write a double quote
            # as two single ones.
            text = html.unescape(text).replace("''", '"').strip()
            rows.append(Rated(text, float(rating), domain, split_of(text)))
    return rows
