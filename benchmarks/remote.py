"""Asking a service: how busy it is kept, what a question costs here, how the store opens, and whether memory grows.

`python -m benchmarks.remote` writes benchmarks/remote.md. The service is a stub in a process of its own that answers after 200 ms.
"""

import io
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from medbench.datasets.images import decode
from medbench.remote.asking import ask
from medbench.remote.endpoint import Reached
from medbench.remote.endpoints.openai import OpenAI
from medbench.remote.limits import Limits
from medbench.remote.request import Request, picture
from medbench.remote.store import Store

LATENCY, FLIGHT, N = 0.2, 16, int(os.environ.get("QUESTIONS", "1600"))


def serve(connection: Connection) -> None:
    """A stub of its own process, so that its CPU is not counted."""
    import asyncio

    body = json.dumps({
        "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 2},
    }).encode()  # fmt: skip
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                await asyncio.sleep(LATENCY)
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0, limit=2**24)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def requests(n: int, side: int) -> Iterator[tuple[int, Request]]:
    """Each about an image of its own, drawn when it is its turn."""
    for place in range(n):
        pixels = np.random.default_rng(place).integers(0, 40, (side, side, 1), dtype=np.uint8).repeat(3, axis=2)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
        data = stream.getvalue()
        yield place, Request("openai", "m", (picture(lambda data=data: decode(data)), f"Question {place}?"), {"temperature": 0})


def memory() -> float:
    """Of this process now [MB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def asked(url: str, n: int, side: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of this process without the drawing, and growth of memory from a quarter of the way on [MB]."""
    shutil.rmtree("store", ignore_errors=True)
    began = time.perf_counter(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    early = 0.0
    with Store("openai", "m") as store:
        for number, _ in enumerate(ask(requests(n, side), OpenAI(Reached(url)), store, Limits(concurrency=FLIGHT))):
            early = memory() if number == n // 4 else early
        grown = memory() - early
    wall, used = time.perf_counter() - began[0], sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - began[1]
    before = time.process_time()
    for _ in requests(n, side):
        pass
    return wall, used - (time.process_time() - before), grown


def main() -> None:
    """Measure, and write the page."""
    page = Path(__file__).with_suffix(".md").absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mine, theirs = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{mine.recv()}/v1"
        list(ask(requests(FLIGHT, 32), OpenAI(Reached(url)), Store("openai", "m"), Limits(concurrency=FLIGHT)))
        rows = []
        for side in (64, 512):
            wall, used, grown = asked(url, N, side)
            busy = N * LATENCY / FLIGHT / wall
            rows.append(f"| {side} x {side} | {wall:.1f} s | {busy:.0%} | {used / N * 1000:.1f} ms | {grown:+.1f} MB |")
        server.terminate()
        opened = opening()
    load = os.getloadavg()[0]
    text = PAGE.format(n=N, flight=FLIGHT, rows="\n".join(rows), opened=opened, cores=os.cpu_count(), load=load)
    page.write_text(text, encoding="utf-8")
    print(text)


def opening() -> str:
    """50,000 answers of 1 kB."""
    with Store("openai", "many") as store:
        store.add("0" * 64, True, model="m", request_id="r", name="sample", asked={"parts": ["?" * 200]}, body={"text": "y" * 600})
        [file] = store.folder.glob("*.jsonl")
    line = file.read_text()
    file.with_name("more.jsonl").write_text("".join(line.replace("0" * 64, f"{number:064x}") for number in range(50_000)))
    before, began = memory(), time.perf_counter()
    with Store("openai", "many") as store:
        seconds, grown = time.perf_counter() - began, memory() - before
        began = time.perf_counter()
        for number in range(0, 50_000, 10):
            store.final(f"{number:064x}")
        each = (time.perf_counter() - began) / 5000
    return f"50,000 answers of 1 kB open in {seconds:.2f} s and take {grown:.0f} MB; one is read in {each * 1e6:.0f} µs"


PAGE = """# Asking a service

`python -m benchmarks.remote` on {cores} shared cores (load {load:.0f} at the end). {n:,} questions, each with an image of its own, of a
stub that answers after 200 ms; {flight} in flight. *Busy*: the share of the best possible throughput, {flight} answers every 200 ms. CPU is
that of the asking process: decoding, encoding as PNG, sending, reading, keeping.

| image | time | busy | CPU a question | memory, from a quarter of the way to the end |
|---|---|---|---|---|
{rows}

{opened}.
"""

if __name__ == "__main__":
    main()
