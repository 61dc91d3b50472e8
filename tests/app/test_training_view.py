"""A training, shown while it runs."""

import shutil

from unnoise.app.training_view import training_view
from unnoise.checkpoint import load


def test_a_training_is_shown_by_its_files_alone(run, tmp_path):
    card = load(run).card
    finished = training_view(run, card)
    assert "finished" in finished
    assert "<h2>Loss</h2>" in finished
    assert "<svg" in finished, "plots are elements and are not escaped"
    assert "no training log" in training_view(tmp_path, card)
    shutil.copytree(run, running := tmp_path / "running")
    (running / "metrics.jsonl").write_text(
        '{"images": 16, "seconds": 3.0, "loss": 0.5, "images_per_second": 5.0}\n{"im'
    )
    assert "25%: 16 images in 0:03, loss 0.5000, 5 images/s; 0:09 left" in training_view(running, card)
