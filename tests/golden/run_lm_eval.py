"""lm-evaluation-harness's own gsm8k filters and metric on given texts. Runs in an environment of its own that has lm-eval, no flopstat.

Reads JSON lines [gold answer, text] and writes, in their order, JSON lines of one [extracted, exact_match] per filter; the last line on
stderr is the seconds that filters and metric took. Only the filters and the metric are imported: the package itself wants torch.

python tests/golden/run_lm_eval.py < texts.jsonl > verdicts.jsonl
"""

import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import yaml

FOLDER = Path(next(iter(importlib.util.find_spec("lm_eval").submodule_search_locations)))
package = types.ModuleType("lm_eval")
package.__path__ = [str(FOLDER)]
sys.modules["lm_eval"] = package

from lm_eval.api.metrics import exact_match_fn  # noqa: E402
from lm_eval.filters import build_filter_ensemble  # noqa: E402


def main() -> None:
    task = yaml.safe_load((FOLDER / "tasks" / "gsm8k" / "gsm8k.yaml").read_text(encoding="utf-8"))
    metric = {k: v for k, v in task["metric_list"][0].items() if k not in ("metric", "aggregation", "higher_is_better")}
    rows = [json.loads(line) for line in sys.stdin]
    instances = [types.SimpleNamespace(resps=[text], doc={"answer": gold}, filtered_resps={}) for gold, text in rows]
    begun = time.perf_counter()
    for one in task["filter_list"]:
        steps = [[step["function"], {k: v for k, v in step.items() if k != "function"} or None] for step in one["filter"]]
        build_filter_ensemble(one["name"], steps).apply(instances)
    verdicts = [
        [
            [found, float(exact_match_fn(references=[one.doc["answer"]], predictions=[found], **metric)["exact_match"])]
            for found in one.filtered_resps.values()
        ]
        for one in instances
    ]
    print(time.perf_counter() - begun, file=sys.stderr)
    for verdict in verdicts:
        print(json.dumps(verdict))


if __name__ == "__main__":
    main()
