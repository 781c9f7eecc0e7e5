"""Run the app with all sites on this machine: start Flower's server, run, stop it, and fail if nothing came of it.

What there is to run: README.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(site: list[str], config: str, flags: str, result: Path, run_config: list[str], port: int, cpus: int) -> int:
    """The app's exit status, which Flower does not tell: 0 if the result's file was written."""
    result = result.resolve()
    result.unlink(missing_ok=True)
    given = {"config": config, "flags": flags, "sites": "; ".join(site), "result": str(result)}
    options = [f"{name}={json.dumps(value)}" for name, value in given.items() if value]  # as TOML writes strings, too
    count = len(site) or 3
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),  # where the sites find tasks
            "FLWR_HOME": home,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        server = subprocess.Popen(
            [
                "flower-superlink",
                "--insecure",
                "--simulation",
                "--disable-runtime-dependency-installation",
                "--port",
                str(port),
            ],
            env=environment,
        )
        try:
            wait(port, server)
            federation = f"num-supernodes={count} client-resources-num-cpus={cpus}"
            command = ["flwr", "run", str(HERE), "--stream", "--federation-config", federation]
            for one in [*options, f"count={count}", *run_config]:
                command += ["--run-config", one]
            subprocess.run(command, env=environment, check=False)
        finally:
            server.terminate()
            server.wait(30)
    return 0 if result.is_file() else 1


def wait(port: int, server: subprocess.Popen) -> None:
    """Until the server answers."""
    for _ in range(120):
        if server.poll() is not None:
            raise SystemExit(f"flower-superlink ended with status {server.returncode}; is port {port} taken?")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"flower-superlink does not answer on port {port}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", action="append", default=[], help="a site's own options; once a site")
    parser.add_argument("--config", default="", help="model and data, as for `python -m tasks fit -c`")
    parser.add_argument("--flags", default="", help="options that go over it at all sites")
    parser.add_argument("--result", type=Path, default=Path("federated.json"))
    parser.add_argument("--run-config", action="append", default=[], help="goes over pyproject.toml's; can be repeated")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--cpus", type=int, default=1, help="of a site")
    sys.exit(main(**vars(parser.parse_args())))
