"""The log of a training, read back."""

from unnoise.reporting.curves import read_log


def test_a_log_that_was_cut_off_is_read_up_to_the_cut(runs, tmp_path):
    text = (runs / "one" / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(text + '{"images": 12, "lo')
    assert read_log(tmp_path / "metrics.jsonl") == read_log(runs / "one" / "metrics.jsonl")
    assert read_log(runs / "one" / "metrics.jsonl").validation
