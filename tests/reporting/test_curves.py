"""The log of a training, read back."""

import json

from unnoise.reporting.curves import draw_curves, read_log


def test_a_log_that_was_cut_off_is_read_up_to_the_cut(runs, tmp_path):
    text = (runs / "one" / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(text + '{"images": 12, "lo')
    assert read_log(tmp_path / "metrics.jsonl") == read_log(runs / "one" / "metrics.jsonl")
    assert read_log(runs / "one" / "metrics.jsonl").validation


def test_copies_are_plotted_with_their_intervals(runs, tmp_path):
    rows = [
        {"images": seen, "seconds": 1.0, "copies": share, "copies_interval": [share, 2 * share], "copies_of_new": 0.01}
        for seen, share in ((100, 0.01), (200, 0.3))
    ]
    text = (runs / "one" / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text("\n".join([text.strip(), *map(json.dumps, rows)]))
    log = read_log(tmp_path / "metrics.jsonl")
    assert log.copies == rows
    before = draw_curves(read_log(runs / "one" / "metrics.jsonl"))["kid_plots"]
    plots = draw_curves(log)["kid_plots"]
    assert len(plots) == len(before) + 1
    assert "nearer to one training image" in plots[-1].caption
