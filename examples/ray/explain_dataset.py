# SPDX-License-Identifier: Apache-2.0
"""Explains every text of a Parquet data set through the gateway with Ray Data,
and writes the results as Parquet: per row the tokens, the attribution, the
prediction, and the figures by which they can be judged; or the error.

Ray reads, spreads and writes; a fixed number of calls is in flight at a time, so
a full server slows the data set down rather than the other way round. A call is
repeated where the server says that it can help, after the time that it says.
What can't be explained is a row with an error, not the end of the run.

Usage: python explain_dataset.py --input DIR --output DIR [--gateway URL]
         [--model M] [--column text] [--method M] [--in-flight 8]
"""
import argparse
import concurrent.futures
import json
import random
import time
import urllib.error
import urllib.request

import pyarrow
import ray

ATTEMPTS = 8
DEADLINE_SECONDS = 60
RETRIABLE = {429, 503}
RESULT = pyarrow.schema([
    ("tokens", pyarrow.list_(pyarrow.string())),
    ("attribution", pyarrow.list_(pyarrow.float32())),
    ("prediction", pyarrow.string()),
    ("probability", pyarrow.float32()),
    ("max_reconstruction_error", pyarrow.float64()),
    ("completeness_error", pyarrow.float64()),
    ("model_digest", pyarrow.string()),
    ("attempts", pyarrow.int32()),
    ("error", pyarrow.string()),
])


def retry_seconds(problem, attempt):
    """How long to wait; None if trying again can't help."""
    for detail in problem.get("details", []):
        if detail.get("@type", "").endswith("google.rpc.RetryInfo"):
            return float(detail["retryDelay"].rstrip("s"))
    # The gateway's own refusals have no advice.
    return random.uniform(0, min(5, 0.1 * 2 ** attempt))


class Explainer:
    """What an actor of Ray keeps: threads that call, and how."""

    def __init__(self, gateway, model, column, method, threads):
        self.url = f"{gateway}/v1/models/{model}:explain"
        self.column, self.method = column, method
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)

    def ask(self, text):
        """Status, body."""
        body = {"input": {"text": text}, "method": self.method,
                "attention": {"kind": "ATTENTION_KIND_NONE"}}
        request = urllib.request.Request(
            self.url, json.dumps(body).encode(),
            {"content-type": "application/json",
             "grpc-timeout": f"{DEADLINE_SECONDS}S"})
        try:
            with urllib.request.urlopen(
                    request, timeout=DEADLINE_SECONDS + 5) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                try:
                    return error.code, json.load(error)
                except ValueError:
                    return error.code, {"message": str(error)}
        except OSError as error:
            return 503, {"message": f"no gateway: {error}"}

    def explain(self, text):
        for attempt in range(1, ATTEMPTS + 1):
            code, body = self.ask(text)
            if code == 200:
                return self.row(body, attempt)
            if code not in RETRIABLE or attempt == ATTEMPTS:
                return {"error": f"{code}: {body.get('message', '')}",
                        "attempts": attempt}
            time.sleep(retry_seconds(body, attempt))

    @staticmethod
    def row(body, attempt):
        header, summary = body["header"], body["summary"]
        values = summary["attributions"]
        best = summary["predictions"][0]
        return {"tokens": [one["piece"] for one in values],
                "attribution": [float(one["value"]) for one in values],
                "prediction": best["piece"],
                "probability": float(best["probability"]),
                "max_reconstruction_error": float(
                    summary["maxReconstructionError"]),
                "completeness_error": summary.get("completenessError"),
                "model_digest": header["modelDigest"],
                "attempts": attempt}

    def __call__(self, batch):
        rows = list(self.pool.map(self.explain,
                                  batch[self.column].to_pylist()))
        for field in RESULT:
            column = pyarrow.array([row.get(field.name) for row in rows],
                                   field.type)
            batch = batch.append_column(field, column)
        return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="sentiment-mamba")
    parser.add_argument("--column", default="text")
    parser.add_argument("--method", default="integrated-gradients")
    parser.add_argument("--in-flight", type=int, default=8,
                        help="calls at the same time, in all")
    parser.add_argument("--actors", type=int, default=1)
    arguments = parser.parse_args()
    data = ray.data.read_parquet(arguments.input).map_batches(
        Explainer, batch_format="pyarrow", batch_size=64,
        concurrency=arguments.actors,
        fn_constructor_args=(
            arguments.gateway, arguments.model, arguments.column,
            arguments.method,
            max(1, arguments.in_flight // arguments.actors)))
    data.write_parquet(arguments.output)
    results = ray.data.read_parquet(arguments.output)
    failed = results.filter(lambda row: row["error"] is not None).count()
    print(f"{results.count()} rows, {failed} with an error")


if __name__ == "__main__":
    main()
