"""Trace files: what the page shows is taken, and each fault is named with its place and its remedy."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.schedule import run
from bench.trace_file import read
from bench.traces import GB
from normalizer.models import ModelRef

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def example() -> dict[str, Any]:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shown: dict[str, Any] = json.loads(block)
    return shown


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_documented_example_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(json_output=True, file=written(tmp_path, example()))
    (trace,) = json.loads(capsys.readouterr().out)["traces"]
    assert trace["trace"] == example()["name"]


def test_sizes_are_gigabytes_and_prompts_come_in_order_of_arrival(tmp_path: Path) -> None:
    trace = read(
        written(
            tmp_path,
            {
                "machine": {"vram_gb": 8, "disk_gb_per_s": 2},
                "components_gb": {"a": 1.5},
                "prompts": [{"at": 9, "models": ["a"], "seconds": 1}, {"at": 2, "models": ["a"], "seconds": 3}],
            },
        )
    )
    assert (trace.machine.vram, trace.machine.ram, trace.machine.disk_bandwidth) == (8 * GB, 64 * GB, 2 * GB)
    assert trace.sizes == {ModelRef("component", ("a",)): 1_500_000_000}
    assert [prompt.at for prompt in trace.prompts] == [2.0, 9.0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"prompts": [{"at": 0, "models": ["a"]}]}, r"prompts\[0\]\.seconds: Field required; add it"),
        ({"prompts": [{"at": -1, "models": ["a"], "seconds": 1}]}, r"prompts\[0\]\.at: .*greater than or equal to 0"),
        ({"prompts": [{"at": 0, "models": ["x"], "seconds": 1}]}, ".*without a size: x; add each to components_gb"),
        ({"prompts": []}, "prompts: .*at least 1 item"),
        ({"machine": {"vram": 8}}, r"machine\.vram: .*; remove it, or mend its name"),
        ({"components_gb": {"a": 0}}, r"components_gb\.a: .*greater than 0; docs/benchmarks.md has the format"),
    ],
)
def test_a_fault_is_told_with_its_place_and_remedy(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    good = {"components_gb": {"a": 1}, "prompts": [{"at": 0, "models": ["a"], "seconds": 1}]}
    with pytest.raises(BenchError, match=rf"trace\.json: {fault}"):
        read(written(tmp_path, {**good, **change}))


def test_broken_json_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{\n"name": }', encoding="utf-8")
    with pytest.raises(BenchError, match=r"line 2 .*; mend the JSON there"):
        read(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file or directory; give the path of a trace file"):
        read(tmp_path / "none.json")
