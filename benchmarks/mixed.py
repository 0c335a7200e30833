"""Many adapters on one backbone: what a batch with several of them costs, what they weigh, and how a server copes.

    python benchmarks/mixed.py                writes benchmarks/results/mixed.json

The embedded base with copies of `embedded:vqa`, moved by noise so that no two are alike. One batch is compared with the
usual way, a pass for each adapter, and with PEFT's LoRA in a mixed batch (`adapter_names`) on the visual encoder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import uniadapter as ua
from uniadapter.compare.machine import processor
from uniadapter.files.assets import asset_path
from uniadapter.files.writing import write_text
from uniadapter.model.sets import adapter_set

RESULTS = Path(__file__).parent / "results" / "mixed.json"
ROWS, REPEATS, MANY = 32, 9, 20
QUESTION = "what is left of the dog?"


def with_adapters(count: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """The embedded question model with `count` adapters, each trained in its own way as far as a clock can tell."""
    model, tokenizer = ua.load_model("embedded", "vqa"), ua.load_tokenizer("embedded")
    generator = torch.Generator().manual_seed(0)
    names = [f"adapter {number}" for number in range(count)]
    for name in names:
        loaded = ua.load_adapter(model, "embedded:vqa", name)
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.add_(0.003 * torch.randn(parameter.shape, generator=generator))
    return model.eval(), tokenizer, names


def pictures() -> list[torch.Tensor]:
    """Random pictures, uint8 [3, 96, 96]."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randint(0, 256, (ROWS, 3, 96, 96), dtype=torch.uint8, generator=generator))


def medians(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median milliseconds of each way, one after the other in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, work in ways.items():
            begun = time.perf_counter()
            work()
            if repeat:  # the first is for warmth
                seconds[name].append(time.perf_counter() - begun)
    return {name: round(1000 * statistics.median(own), 1) for name, own in seconds.items()}


def batches() -> list[dict[str, Any]]:
    """Questions about as many pictures, with one to eight adapters among them."""
    model, tokenizer, names = with_adapters(8)
    shown, questions, rows = pictures(), [QUESTION] * ROWS, []
    for count in (1, 2, 4, 8):
        of_rows = [names[row % count] for row in range(ROWS)]

        def mixed(of_rows: list[str] = of_rows) -> list[Any]:
            return ua.ask_each(model, tokenizer, shown, questions, adapter=of_rows)

        def separate(of_rows: list[str] = of_rows) -> list[Any]:
            found: dict[int, Any] = {}
            for name in dict.fromkeys(of_rows):
                own = [row for row, one in enumerate(of_rows) if one == name]
                some = ua.ask_each(model, tokenizer, [shown[row] for row in own], [QUESTION] * len(own), adapter=name)
                found.update(zip(own, some, strict=True))
            return [found[row] for row in range(ROWS)]

        pairs = list(zip(mixed(), separate(), strict=True))
        apart = max(abs(a - b) for one, other in pairs for (_, a), (_, b) in zip(one.ranked, other.ranked, strict=True))
        times = medians({"mixed_ms": mixed, "separate_ms": separate})
        rows.append({"adapters": count, **times, "same_answers": all(a.answer == b.answer for a, b in pairs),
                     "largest_difference": apart})  # fmt: skip
    return rows


def visual() -> list[dict[str, Any]]:
    """The visual encoder alone, beside PEFT's mixed batch of LoRA with as many parameters there."""
    from peft import LoraConfig, get_peft_model

    model, _, names = with_adapters(8)
    own = adapter_set(model, names[0])
    there = sum(p.numel() for name, p in own.layers.named_parameters() if "up_vision" in name or "down" in name)
    other = ua.load_model("embedded", "vqa").vision_model
    rank = max(
        1, round(there / sum(sum(m.weight.shape) for m in other.encoder.modules() if isinstance(m, torch.nn.Linear)))
    )
    config = LoraConfig(r=rank, target_modules=r".*encoder.*(qkv|projection|fc1|fc2)", init_lora_weights=False)
    lora = get_peft_model(other, config, names[0].replace(" ", "_"))
    for name in names[1:]:
        lora.add_adapter(name.replace(" ", "_"), config)
    lora.eval()
    pixels = torch.randn(ROWS, 1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    rows = []
    for count in (1, 8):
        of_rows = [names[row % count] for row in range(ROWS)]

        @torch.no_grad()
        def ours(of_rows: list[str] = of_rows) -> None:
            with ua.active_adapter(model, of_rows):
                ua.encode_visual(model, pixels)

        @torch.no_grad()
        def pefts(of_rows: list[str] = of_rows) -> None:
            lora(pixel_values=pixels[:, 0], adapter_names=[name.replace(" ", "_") for name in of_rows])

        @torch.no_grad()
        def base() -> None:
            with ua.active_adapter(model, None):
                ua.encode_visual(model, pixels)

        times = medians({"uniadapter_ms": ours, "lora_ms": pefts, "base_ms": base})
        rows.append({"adapters": count, "lora_rank": rank, **times})
    return rows


def memory(count: int, full: bool) -> dict[str, int]:
    """Bytes of `count` adapters on one model, or of as many models: parameters, and what the process grew by."""
    import psutil

    process = psutil.Process()
    warm = ua.load_model("embedded", "vqa")  # so that libraries are loaded
    before = process.memory_info().rss
    if full:
        held = [ua.load_model("embedded", "vqa") for _ in range(count)]
        counted = {id(p): p.nbytes for model in held for p in model.parameters()}
    else:
        model, _, _ = with_adapters(count)
        counted = {id(p): p.nbytes for p in model.parameters()}
    grown = process.memory_info().rss - before
    del warm
    return {"parameter_bytes": sum(counted.values()), "process_bytes": grown}


def served(folder: Path) -> list[dict[str, Any]]:
    """Questions a second over HTTP, eight visitors at once, each with a picture of its own."""
    import httpx

    media = folder / "media"
    media.mkdir()
    from PIL import Image

    for number, picture in enumerate(pictures()):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(media / f"{number:02d}.png")
    adapters = []
    model, _, names = with_adapters(8)
    for number, name in enumerate(names):
        adapters += ["--adapter", str(ua.save_adapter(model, folder / f"own{number}", name))]
    run = [sys.executable, "-m", "uniadapter"]
    subprocess.run([*run, "index", str(media), "--index", str(folder / "my.index")], check=True, capture_output=True)
    server = subprocess.Popen(
        [*run, "serve", str(folder / "my.index"), *adapters, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = next(line for line in server.stdout if line.startswith("open ")).split()[1].rstrip(";")
    try:
        keys = [one["key"] for one in httpx.get(f"{url}api/search?query=a&top=32").json()["results"]]
        return [traffic(url, keys, [f"own{number}" for number in range(count)]) for count in (1, 8)]
    finally:
        server.terminate()
        server.wait()


def traffic(url: str, keys: list[str], adapters: list[str], visitors: int = 8, each: int = 25) -> dict[str, Any]:
    """What visitors get who ask one question after the other."""
    import httpx

    begin, seconds = threading.Barrier(visitors), list[float]()

    def visitor(number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            body = {
                "item": keys[number % len(keys)],
                "question": QUESTION,
                "adapters": [adapters[number % len(adapters)]],
            }
            client.post("api/ask", json=body).raise_for_status()
            begin.wait()
            for _ in range(each):
                begun = time.perf_counter()
                client.post("api/ask", json=body).raise_for_status()
                seconds.append(time.perf_counter() - begun)

    with ThreadPoolExecutor(visitors) as pool:
        begun = time.perf_counter()
        list(pool.map(visitor, range(visitors)))
        whole = time.perf_counter() - begun
    metrics = httpx.get(f"{url}metrics").text
    batch = next(line.split()[1] for line in metrics.splitlines() if line.startswith("uniadapter_batch_size "))
    return {
        "adapters": len(adapters), "visitors": visitors,
        "requests_a_second": round(visitors * (each + 1) / whole, 1),
        "p50_ms": round(1000 * statistics.median(seconds), 1), "mean_batch": round(float(batch), 1),
    }  # fmt: skip


def in_its_own_process(what: str) -> dict[str, int]:
    """`memory` in a fresh process."""
    found = subprocess.run([sys.executable, __file__, "--only", what], check=True, capture_output=True, text=True)
    answer: dict[str, int] = json.loads(found.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("adapters", "models"), help="print that part of the memory, write nothing")
    only = parser.parse_args().only
    if only:
        sys.stdout.write(json.dumps(memory(MANY, only == "models")) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        found = {
            "device": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": ROWS,
            "questions": batches(), "visual": visual(), "adapter_bytes": _adapter_bytes(),
            "memory": {f"{MANY} adapters, one model": in_its_own_process("adapters"),
                       f"{MANY} fine-tuned models": in_its_own_process("models")},
            "served": served(Path(folder)),
        }  # fmt: skip
    write_text(RESULTS, json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def _adapter_bytes() -> int:
    return (asset_path("adapters") / "vqa" / "adapter_model.safetensors").stat().st_size


if __name__ == "__main__":
    main()
