"""One self-describing file, `model.safetensors`: save it, find it, open it. No pickle is ever read."""

import copy
import hashlib
import inspect
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, cast

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from unnoise import registry
from unnoise.card import Card, Run, make_card, parse_card
from unnoise.device import out_of_memory, pick_device
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.files import refuse_dead_link, user_path
from unnoise.interop.diffusers_format import INDEX, NETWORKS
from unnoise.interop.diffusers_read import is_of_diffusers, network_folder, read_pipeline, weight_files
from unnoise.options import Spec, options_of, plain
from unnoise.run_folder import METRICS, MODEL, NETWORK, is_own, link_error, own_file
from unnoise.tensors import read_tensors, save_tensors, unshared
from unnoise.types import MODES

MAX_PARAMETERS = 4  # parameters that a network registers for each that it keeps: some are replaced while it is built
MODEL_FILES = (MODEL, INDEX, *(f"{place}/{NETWORK}" for place in NETWORKS))  # in a folder that is opened as a run
RunLike: TypeAlias = Run | Diffusion | str | os.PathLike[str]  # a run, a model, or the path of a run or model file


def build_model(card: Card, backbone: Spec | None = None) -> Diffusion:
    """Return the untrained model that a card describes; `backbone` takes the place of the one it names."""
    schedule, target = registry.schedule.get(card.schedule)(), registry.target.get(card.target)
    network = build_backbone(card, backbone)
    if backbone is not None and not isinstance(backbone, str):
        found = outputs_of(network, card.shape, len(card.classes), card.backbone)
        if found != (1 + card.learned_variance) * card.shape[0]:
            learned = "learns the variance too" if card.learned_variance else "does not learn the variance"
            raise InputError(f"backbone {card.backbone} gives {found} channels, but the objective {learned}")
    return Diffusion(network, schedule, target, card.shape, card.classes)


def build_backbone(card: Card, backbone: Spec | None = None) -> nn.Module:
    """Return the untrained network that a card describes."""
    channels = card.shape[0]
    outputs = 2 * channels if card.learned_variance else channels
    return build_network(backbone or card.backbone, channels, len(card.classes), outputs)


def build_network(backbone: Spec, channels: int, classes: int = 0, outputs: int | None = None) -> nn.Module:
    """Build a network with the sizes that it takes positionally: channels, classes, outputs.

    A parameter with a default counts only if it has one of these names: Net(channels, width=64) takes the channels.
    """
    made = registry.backbone.get(backbone)
    sizes = {"channels": channels, "classes": classes, "outputs": outputs or channels}
    given = list[int]()
    for (name, value), p in zip(sizes.items(), inspect.signature(made).parameters.values(), strict=False):
        if p.kind is p.VAR_POSITIONAL:
            given = [*sizes.values()]
            break
        if p.kind is p.KEYWORD_ONLY or (p.name != name and p.default is not p.empty):
            break
        given.append(value)
    network = made(*given)
    if not isinstance(network, nn.Module):
        raise InputError(f"backbone {registry.backbone.text(backbone)} gives {type(network).__name__}, no network")
    return network


@torch.no_grad()  # not inference_mode: a network may keep tensors that it makes here
def outputs_of(network: nn.Module, shape: tuple[int, int, int], classes: int, name: str) -> int:
    """Return the channels that a network gives for images of a shape, [channels, height, width].

    Raises:
        InputError: The network cannot be called as network(x, time, label), or its output has another size.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    x, time = torch.zeros(1, *shape, device=device), torch.zeros(1, device=device)
    label = torch.full((1,), -1, device=device) if classes else None
    modes = {module: module.training for module in network.modules()}
    try:
        output = network.eval()(x, time, label)
    except (TypeError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"backbone {name} cannot be called as network(x, time, label) with x {[1, *shape]}, time [1] and label "
            f"{'[1]' if classes else None}: {reason:.200}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    found, c = list(getattr(output, "shape", ())), shape[0]
    if found not in ([1, c, *shape[1:]], [1, 2 * c, *shape[1:]]):
        raise InputError(
            f"backbone {name} gives {found or type(output).__name__} for images {[1, *shape]}; it must give {c} "
            f"channels of the same size, or {2 * c} if it learns the variance"
        )
    return cast("int", found[1])


def path_of(run: RunLike) -> str:
    """Return where a run is, without opening it; raise InputError for a model in memory."""
    if not isinstance(run, Diffusion | str | os.PathLike):
        raise InputError(f"a run is a run folder, a model file, a Diffusion or the result of load, got {run!r:.100}")
    return os.fspath(run_in_memory(run) if isinstance(run, Diffusion) else run)


def as_run(run: RunLike) -> Run:
    """Return a run: as it is, or opened from a run folder or model file, or made of a model in memory."""
    if isinstance(run, Run):
        return run
    if isinstance(run, Diffusion):
        return run_in_memory(run)
    return load(run)


def run_in_memory(model: Diffusion) -> Run:
    """Return a run of a model in memory, in evaluation mode: it shares the weights, and the model stays as it is."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    kept = {id(tensor): tensor for tensor in (*model.buffers(), model.schedule.alpha, model.schedule.sigma)}
    view: Diffusion = copy.deepcopy(model, {**shared, **kept}).eval()
    backbone = registry.backbone.text(model.backbone)
    c = model.shape[0]
    card = Card(
        backbone=backbone,
        schedule=schedule_text(model.schedule),
        target=registry.target.text(model.target),
        shape=model.shape,
        mode=MODES.get(c, ""),
        classes=model.classes,
        learned_variance=outputs_of(view.backbone, model.shape, len(model.classes), backbone) == 2 * c,
        plugin=registry.backbone.origin(backbone),
    )
    return Run(view, replace(card, sampling=card.sampling.within(model.schedule.T)), None)


def schedule_text(schedule: Schedule) -> str:
    """Return a spec that makes the same schedule: a registered one, or `betas` with all its values."""
    entries = registry.schedule.names()
    named = [name for name in entries if name != "betas"]
    sized = [f"{name}:T={schedule.T}" for name in named if "T" in options_of(registry.schedule.entries[name])]
    values = "-".join(map(repr, schedule.betas.tolist()))
    for spec in (*named, *sized, f"betas:values={values}"):
        with suppress(InputError):
            made = registry.schedule.get(spec)()
            if made.T == schedule.T and all(
                torch.allclose(ours, theirs, rtol=0, atol=1e-12)
                for ours, theirs in ((made.alpha, schedule.alpha), (made.sigma, schedule.sigma))
            ):
                return spec
    return "of your own"


def save(path: str | os.PathLike[str], model: Run | Diffusion) -> None:
    """Write a model file that holds the weights and everything needed to open it; it is whole or not there at all.

    Args:
        path: The file to write, NAME.safetensors; a file that is there is replaced.
        model: A run or a model.

    Raises:
        InputError: The path is no such file, or the schedule or target cannot be named in a file.
    """
    file = user_path(path)
    if file.suffix != ".safetensors" or file.is_dir():
        raise InputError(f"a model is saved in a file NAME.safetensors, got {str(path)!r}")
    run = as_run(model)
    registry.schedule.named(run.card.schedule)
    registry.target.named(run.card.target)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_model(file, run.model.backbone.state_dict(), run.card)


def write_model(path: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write the self-describing model file."""
    save_tensors(path, weights, plain(card))


def load(
    path: str | os.PathLike[str], device: str | torch.device | None = None, *, backbone: Spec | nn.Module | None = None
) -> Run:
    """Open a run folder or a model file; the model is in evaluation mode.

    Args:
        path: A run folder, a model file, or a pipeline folder of diffusers.
        device: Where the model is put; by default on the GPU if there is one.
        backbone: Your own network: its class, an instance, or a callable (channels, classes, outputs) -> network.
            It is needed if the file names a class that is neither registered nor imported.

    Returns:
        The run: model, card, and the path of its file.

    Raises:
        InputError: The file is missing or damaged, or its network is not known here.
    """
    file = find_model(Path(path_of(path)))
    card, weights = read_model(file)
    with torch.random.fork_rng(devices=[]):  # first weights are random, and the random stream is the user's
        check_network(card, weights, file, backbone)
        model = build_model(card, backbone)
    model.backbone.load_state_dict(weights)
    for name, p in model.backbone.named_parameters():
        if not p.isfinite().all():
            raise InputError(
                f"{file}: the weights {name} are not finite (NaN or infinity), so that every image would be black; "
                f"use another model file of this training, or train again"
            )
    return Run(model.to(device or pick_device()).eval().requires_grad_(requires_grad=False), card, file)


def check_network(card: Card, weights: Mapping[str, Tensor], file: Path, backbone: Spec | None = None) -> None:
    """Raise InputError unless the network that a file names has the weights of the file; it takes no memory."""
    own = backbone is not None or registry.is_own(card.backbone)
    hint = "give the network it was made with: unnoise.load(path, backbone=...)" if own else "is it damaged?"
    wrong = InputError(f"{file}: the weights do not fit the network {card.backbone:.200}; {hint}")
    network = open_backbone(card, file, backbone, MAX_PARAMETERS * (len(weights) + 100), wrong)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in weights.items()}:
        raise wrong


@contextmanager
def at_most(parameters: int, error: Exception) -> Iterator[None]:
    """Raise the error as soon as modules register more parameters than this: a small file may ask for much."""
    count = itertools.count(1)

    def refuse(*_: object) -> None:
        if next(count) > parameters:
            raise error

    hook = register_module_parameter_registration_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def open_backbone(card: Card, file: Path, backbone: Spec | None, parameters: int, wrong: InputError) -> nn.Module:
    """Build the network of a file without memory for its weights, until it is known that the file holds as much.

    Networks of your own that cannot be built so are built as usual. Raises `wrong` if it has far more parameters than
    the file has tensors.
    """
    own = backbone is not None or registry.is_own(card.backbone)
    if backbone is None:
        refuse_unknown(card, file)
    try:
        with torch.device("meta"), at_most(parameters, wrong):
            return build_backbone(card, backbone)
    except InputError:
        raise
    except Exception:
        if not own:
            raise
    return build_backbone(card, backbone)


def refuse_unknown(card: Card, file: Path) -> None:
    """Raise InputError if the network of a file is a user's own and is not known here; nothing is imported."""
    try:
        registry.backbone.get(card.backbone)
    except InputError:
        if not card.plugin and not registry.is_own(card.backbone):
            raise
        first, _, rest = card.backbone.partition(":")
        own = registry.is_own(card.backbone)
        what, name = (f"the class {rest} of the module {first}", rest) if own else (first, "...")
        origin = f" (from the plugin {card.plugin})" if card.plugin else ""
        raise InputError(
            f"{file}: its network is {what}{origin}, which is not known here; add --plugin FILE.py that defines it, "
            f"or import it in Python: unnoise.load({str(file)!r}, backbone={name})"
        ) from None


def weights_hash(run: Run) -> str:
    """Return the sha256 of the weights alone, since the card may change: the run may be tuned."""
    if run.path is None:
        content = safetensors.torch.save(unshared(run.model.backbone.state_dict()))
        return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    files, digest = [run.path], hashlib.sha256()
    if is_of_diffusers(run.path):
        files = weight_files(network_folder(run.folder))
    for path in files:
        with path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))  # the header of safetensors, after its own length
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def find_model(path: Path) -> Path:
    """Return the model file of a run folder, or the file itself; raise InputError that names runs that are near."""
    if path.is_dir():
        for name in MODEL_FILES:
            if own_file(path, name):
                return path / name
            if (path / name).is_symlink():
                raise link_error(path / name, path)
        runs = sorted(found.parent.name for found in path.glob(f"*/{MODEL}"))
        hint = f"it holds the runs {', '.join(runs)}: name one" if runs else "train one with 'unnoise train'"
        raise InputError(f"{path} is no run: it has no {MODEL}; {hint}")
    if not path.exists():
        refuse_dead_link(path)
        near = sorted(str(found.parent) for found in Path("runs").glob(f"*/{MODEL}"))
        raise InputError(
            f"no run at {path}; " + (f"there are {', '.join(near)}" if near else "train one with 'unnoise train'")
        )
    if own_file(path.parent, METRICS) and not is_own(path.parent, path):
        raise link_error(path, path.parent)
    return path


def read_model(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Return the card and weights of a model file, or of a folder of diffusers by the file that `find_model` names."""
    if is_of_diffusers(path):
        about, weights = read_pipeline(path.parent.parent if path.name == NETWORK else path.parent)
        return make_card(about, path), weights
    text, weights = read_tensors(path)
    return parse_card(text, path), weights
