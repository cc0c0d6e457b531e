"""Answers a batch file on a Ray cluster; each actor keeps one `huozi batch --follow` running.

    python ray_batch.py -m huozi.gguf -i in.jsonl -o results --actors 4 --threads 8

All nodes share these paths; other options go to `huozi batch`. Every row needs a custom_id. `results` gets
files of result lines in any order, error rows among them; the same command again does what is missing."""
import argparse, io, json, os, subprocess, sys, threading
from concurrent.futures import Future
import pyarrow, ray
from ray.data.checkpoint import CheckpointConfig
from ray.data.datasource import BlockBasedFileDatasink, FileBasedDatasource

class Rows(FileBasedDatasource):
    """Lines and their ids; line N without a custom_id is `line-N`, as in `huozi batch`."""
    def _read_stream(self, f, path):
        for number, line in enumerate(io.BufferedReader(f), 1):
            try:
                name, own = json.loads(line)["custom_id"] + "", True
            except (ValueError, TypeError, KeyError, RecursionError):
                name, own = f"line-{number}", False
            if line.strip():
                yield pyarrow.table({"custom_id": [name], "own": [own], "line": [line.rstrip() + b"\n"]})

class Results(BlockBasedFileDatasink):
    def write_block_to_file(self, block, file):
        for line in block.to_arrow()["result"].to_pylist():
            file.write(line)

class Huozi:
    """An actor whose huozi dies ends too: Ray starts another and repeats the unfinished blocks."""
    def __init__(self, command):
        self.lock, self.sent, self.seen, self.waiting = threading.Lock(), 0, set(), {}
        self.huozi = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for line in self.huozi.stdout:
                result = json.loads(line)
                name, done = self.waiting.pop(result["custom_id"])
                if name != result["custom_id"]:  # huozi counts its own lines, not those of the file
                    line = json.dumps({**result, "custom_id": name}, ensure_ascii=False).encode() + b"\n"
                done.set_result(line)
        finally:
            if self.waiting:
                os._exit(1)

    def __call__(self, block):
        results = []
        with self.lock:
            for self.sent, row in enumerate(block.to_pylist(), self.sent + 1):
                key = row["custom_id"] if row["own"] else f"line-{self.sent}"
                if key in self.seen or self.huozi.poll() is not None:
                    os._exit(1)  # Ray repeats a block that it lost, but a huozi answers an id only once
                self.seen.add(key)
                results.append(Future())
                self.waiting[key] = row["custom_id"], results[-1]
                self.huozi.stdin.write(row["line"])
            self.huozi.stdin.flush()
        return pyarrow.table({"custom_id": block["custom_id"], "result": [r.result() for r in results]})

if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in "-m", "-i", "-o":
        parser.add_argument(name, required=True, type=os.path.abspath)
    for name, default in ("--actors", 1), ("--threads", 1), ("--rows", 64):
        parser.add_argument(name, default=default, type=int)
    o, more = parser.parse_known_args()
    huozi = [os.environ.get("HUOZI", "huozi"), "batch", "-m", o.m, "-t", str(o.threads), *more]
    subprocess.run([*huozi, "-i", o.i, "--check"]).returncode in (0, 3) or sys.exit(1)  # 3: error rows
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        "custom_id", f"{o.o}/checkpoint", delete_checkpoint_on_success=False)
    ds = ray.data.read_datasource(Rows(o.i), ray_remote_args={"num_cpus": 0}).map_batches(
        lambda block: block, batch_size=o.rows, batch_format="pyarrow", num_cpus=0)
    ds = ds.repartition(target_num_rows_per_block=o.rows).map_batches(
        Huozi, fn_constructor_args=[[*huozi, "--follow", "-i", "-", "-o", "-"]], batch_size=None,
        batch_format="pyarrow", num_cpus=o.threads - 1, max_restarts=3,  # Ray's own work needs a CPU
        compute=ray.data.ActorPoolStrategy(
            size=o.actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True),
    ).write_datasink(Results(o.o, file_format="jsonl"), ray_remote_args={"num_cpus": 0})
