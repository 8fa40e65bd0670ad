"""llama.cpp's server as the package `xllamacpp` has it, with the options of `llama-server` that tests need.

Run by the Python of an environment with that package: `python tests/llama_server.py -m MODEL.gguf --port PORT`.
"""

import argparse
import threading


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("-t", dest="threads", type=int, default=1)
    parser.add_argument("-np", dest="parallel", type=int, default=8)
    parser.add_argument("-c", dest="context", type=int, default=16384, help="of all slots together")
    given = parser.parse_args()

    import xllamacpp  # type: ignore[import-not-found,unused-ignore]

    options = xllamacpp.CommonParams()
    options.model.path = given.model
    options.hostnames, options.port = ["127.0.0.1"], given.port
    options.n_parallel, options.n_ctx = given.parallel, given.context
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = given.threads
    server = xllamacpp.Server(options)
    print("listening at", server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
