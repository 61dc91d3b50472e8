"""Open the teacher of a distillation, and copy it into the folder of the student."""

from pathlib import Path

from unnoise.card import Run
from unnoise.checkpoint import find_model, load, read_model, write_model
from unnoise.config import TrainConfig
from unnoise.device import pick_device
from unnoise.diffusion.model import Diffusion
from unnoise.distillation.teacher import Teacher, check_teacher
from unnoise.errors import InputError
from unnoise.run_folder import TEACHER, own_file
from unnoise.training.precision import choose_precision, lower_precision, place_network


def open_teacher(config: TrainConfig, folder: Path | None) -> Teacher | None:
    """Return the teacher of --distill: the run of --init, or its copy in the folder of a run that is resumed."""
    if config.distill is None:
        return None
    file = find_model(Path(config.init or "")) if folder is None else own_file(folder, TEACHER)
    if file is None:
        raise InputError(f"{folder} has no {TEACHER}, from which this run learns; --fresh starts over")
    device = pick_device()
    run = load(file, device, backbone=None if isinstance(config.backbone, str) else config.backbone)
    check_teacher(run, config.steps or 1)
    precision, model = choose_precision(config.precision, device), run.model
    place_network(model.backbone, device, precision)
    network = lower_precision(model.backbone, precision)
    lowered = Diffusion(network, model.schedule, model.target, model.shape, model.classes)
    return Teacher(Run(lowered, run.card, run.path), config.distill, Path(config.init or "").name)


def keep_teacher(teacher: Teacher, folder: Path) -> None:
    """Write a teacher as a model file, so that the student resumes without the run."""
    card, weights = read_model(teacher.run.file)
    write_model(folder / TEACHER, weights, card)
