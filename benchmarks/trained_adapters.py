"""The adapters that ship: UniAdapter of seed 0 on each embedded task, as the comparisons' tables have it.

    python benchmarks/trained_adapters.py scenes    assets/adapters/scenes; also of clips, vqa, videoqa and caption
    python benchmarks/trained_adapters.py           all five, and the card

Each is trained anew, at the learning rate that validation chose, and kept only if all figures on the test sets are
those of the committed record. On another processor than the records' (results/compare/*.json) they may differ in the
last digits; then nothing is written. Use one thread, as the records did: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from prove import RECORDS, ROOT, comparison_of

from uniadapter.app.display import set_up_logging
from uniadapter.compare.comparison import at_rate, chosen_configs
from uniadapter.compare.recipes import Splits
from uniadapter.compare.trials import Trial, Trials
from uniadapter.files.writing import write_text
from uniadapter.runs.results import measure
from uniadapter.runs.steps import ADAPTER, save_result, train_split
from uniadapter.tasks.preparing import prepare

ADAPTERS = ROOT / "assets" / "adapters"
# The config's name, by which the adapter is called, and its comparison.
TASKS = {"scenes": "scenes", "clips": "video", "vqa": "vqa", "videoqa": "videoqa", "caption": "caption"}
SPLITS = Splits()  # read once for all
COSTS = {"seconds", "train_seconds", "peak_memory_bytes", "checkpoint_bytes"}  # of a row: not what it measures
CARD = """# Adapters trained on the embedded tasks

UniAdapter of seed 0 on the frozen [base](../backbone/README.md), as in [docs/results.md](../../docs/results.md).
They reproduce these figures without training, `novel` with `--split novel`:

{table}

```bash
uniadapter evaluate scenes --adapter embedded:scenes
uniadapter ask picture.png "is there a cat?" --adapter embedded:vqa
```

```python
import uniadapter as ua

loaded = ua.from_pretrained("embedded:scenes")  # model with adapter, tokenizer, settings
```

Written by `python benchmarks/trained_adapters.py`, which keeps an adapter only if its figures are those of the
committed record. They were trained on the embedded [scenes](../scenes/README.md) and [clips](../clips/README.md),
and know nothing else. Licence: Apache-2.0, as the repository.
"""


def trial_of(task: str) -> tuple[Trials, Trial]:
    """The run of seed 0 on the test sets, with the rate that validation chose."""
    trials = Trials(RECORDS, SPLITS)
    comparison = comparison_of(task, trials, ROOT / "results", only=("uniadapter",))
    config = chosen_configs(comparison)[comparison.reference]
    return trials, Trial("uniadapter", "uniadapter", "", at_rate(config, config.train.lr), "test")


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what it cost."""
    return {name: value for name, value in row.items() if name not in COSTS}


def make(name: str) -> None:
    """Train, compare with the record, and write the folder.

    Raises:
        SystemExit: the record is missing, or a figure is another.
    """
    trials, trial = trial_of(TASKS[name])
    record = trials.find(trial)
    if record is None:
        raise SystemExit(f"{name}: no record; run `prove.py {TASKS[name]}` first")
    config, (train,) = trial.config, trials.splits.get(trial.config, "train").values()
    prepared = prepare(config)
    train_split(prepared, train, config)
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        size = save_result(prepared, config, Path(folder))
        rows = measure(prepared, config, trials.splits.get(config, "test"), trial.method, 0.0, size).rows
        for mine, recorded in zip(rows, record["rows"], strict=True):
            found, stated = figures({"seed": 0, **json.loads(json.dumps(mine))}), figures(recorded)
            if found != stated:
                differ = {key: (found.get(key), stated.get(key)) for key in stated if found.get(key) != stated[key]}
                raise SystemExit(f"{name}: other figures than the record's, so nothing is written: {differ}")
        shutil.rmtree(ADAPTERS / name, ignore_errors=True)
        shutil.copytree(Path(folder) / ADAPTER, ADAPTERS / name)


def headline(row: dict[str, Any]) -> str:
    """The figures that the tables begin with."""
    for key, value in row.items():
        if isinstance(value, dict) and "r@1" in value:
            return f"{key.replace('_', ' ')} R@1 {value['r@1']:.2f}"
    return f"CIDEr {row['cider']:.2f}" if "cider" in row else f"accuracy {row['accuracy']:.2f}"


def card() -> str:
    """The card of the folder, of the records."""
    lines = ["| adapter | trainable | file | test | `novel` |", "|:--|--:|--:|:--|:--|"]
    for name, task in TASKS.items():
        trials, trial = trial_of(task)
        record = trials.find(trial)
        assert record is not None, name
        rows = {row.get("test_set"): row for row in record["rows"]}
        test, novel = rows[None], rows["novel"]
        size = (ADAPTERS / name / "adapter_model.safetensors").stat().st_size
        lines.append(
            f"| `embedded:{name}` | {test['trainable_percent']:.2f}% | {size / 1e6:.2f} MB | {headline(test)} | "
            f"{headline(novel)} |"
        )
    return CARD.format(table="\n".join(lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TASKS)}; all without one")
    asked = parser.parse_args().names
    set_up_logging()
    ADAPTERS.mkdir(exist_ok=True)
    for name in asked or TASKS:
        make(name)
    if all((ADAPTERS / name).is_dir() for name in TASKS):
        write_text(ADAPTERS / "README.md", card())


if __name__ == "__main__":
    main()
