"""Answers a batch file on a Ray cluster; each actor keeps one `huozi batch --follow` running.

    python ray_batch.py -m huozi.gguf -i in.jsonl -o results [--actors N] [--rows N] [options of huozi batch]

All nodes share these paths. Every row needs a custom_id. `results` gets files of result lines and errors; the
same command again does what is missing."""
import argparse, io, json, os, subprocess, sys, threading, pyarrow, ray
from concurrent.futures import Future
from ray.data.checkpoint import CheckpointConfig
from ray.data.datasource import BlockBasedFileDatasink, FileBasedDatasource

class Rows(FileBasedDatasource):
    def _read_stream(self, f, path):
        for number, line in enumerate(io.BufferedReader(f), 1):
            line = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n") + b"\n"
            try:
                name = row["id"] if (row := json.loads(line)).get("custom_id") is None else row["custom_id"]
                name, own = str(name).encode().decode(), type(name) in (str, int)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                own = False  # huozi names it line-N
            row = {"custom_id": name if own else f"line-{number}", "own": own, "number": number, "line": line}
            yield from [pyarrow.Table.from_pylist([row])] if line.decode(errors="replace").strip() else []

class Results(BlockBasedFileDatasink):
    def write_block_to_file(self, block, file):
        file.write(b"".join(block.to_arrow()["result"].to_pylist()))

class Huozi:
    """An actor whose huozi dies ends too: Ray starts another and repeats the unfinished blocks."""
    def __init__(self, command):
        self.lock, self.sent, self.names, self.waiting = threading.Lock(), 0, {}, {}
        self.huozi = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for line in self.huozi.stdout:
                result = json.loads(line)
                name = result["custom_id"]
                number, done = self.waiting.pop(self.names.get(name) or int(name.removeprefix("line-")))
                if name not in self.names:  # huozi counts the lines that it gets
                    line = json.dumps({**result, "custom_id": f"line-{number}"}).encode() + b"\n"
                done.set_result(line)
        finally:
            self.waiting and os._exit(1)

    def __call__(self, block):
        results = []
        with self.lock:
            for self.sent, row in enumerate(block.to_pylist(), self.sent + 1):
                if row["custom_id"] in self.names or self.huozi.poll() is not None:
                    os._exit(1)  # Ray repeats a block that it lost, but a huozi answers an id only once
                self.names.update({row["custom_id"]: self.sent} if row["own"] else {})
                results.append(Future())
                self.waiting[self.sent] = row["number"], results[-1]
                self.huozi.stdin.write(row["line"])
            self.huozi.stdin.flush()
        return pyarrow.table({"custom_id": block["custom_id"], "result": [r.result() for r in results]})

if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in "-m", "-i", "-o":
        parser.add_argument(name, required=True, type=os.path.abspath)
    parser.add_argument("--actors", type=int)  # one per node
    parser.add_argument("--rows", type=int, default=64)  # of a file of results
    o, more = parser.parse_known_args()
    huozi = [os.environ.get("HUOZI", "huozi"), "batch", "-m", o.m, *more]
    subprocess.run([*huozi, "-i", o.i, "--check"]).returncode in (0, 3) or sys.exit(1)  # 3: error rows
    ray.init()
    actors = o.actors or len(ray.nodes())
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        "custom_id", f"{o.o}/checkpoint", delete_checkpoint_on_success=False)
    ray.data.read_datasource(Rows(o.i), num_cpus=0).map_batches(
        lambda block: block, batch_size=o.rows, batch_format="pyarrow", num_cpus=0,
    ).repartition(target_num_rows_per_block=o.rows).map_batches(
        Huozi, fn_constructor_args=[[*huozi, "--follow", "-i", "-", "-o", "-"]], max_restarts=3,
        batch_size=None, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(
            size=actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True),
        num_cpus=max(0, ray.cluster_resources()["CPU"] // actors - 1),  # Ray's own work needs a CPU
    ).write_datasink(Results(o.o, file_format="jsonl"), ray_remote_args={"num_cpus": 0})
