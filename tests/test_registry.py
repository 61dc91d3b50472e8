"""Names, specs, and what is said of a mistake."""

import gc
import sys
from functools import partial, wraps
from typing import Literal

import pytest
import torch

from unnoise import registry
from unnoise.errors import InputError, unknown
from unnoise.options import format_value, options_of, parse_value
from unnoise.registry import Registry
from unnoise.samplers.ddim import ddim

MORE = "; more can come from --plugin FILE.py"
KINDS = ("schedule", "spacing", "target", "objective", "times", "optimizer", "sampler", "backbone")
EVERY = {kind: getattr(registry, kind) for kind in KINDS}


@pytest.fixture
def toys():
    """A registry with one option of each type; its home is any package that imports."""
    toys = Registry("toy", "unnoise.diffusion")

    @toys
    def drum(  # noqa: PLR0913  # one of each type
        size,
        *,
        beats: int = 4,
        loud: float = 0.5,
        big: bool = False,
        rolls: tuple[int, ...] = (64, 128),
        kind: Literal["snare", "bass"] = "snare",
        label: str = "mine",
        limit: int | None = None,
        hook: object = None,
    ):
        """Make a noise.

        And more of it.
        """
        return dict(locals())

    @toys
    class Doll:
        def __init__(self, *, eyes: int = 2) -> None:
            self.eyes = eyes

    return toys


def given(made):
    return made.keywords


def test_a_spec_is_the_function_with_its_options(toys):
    plain = toys.get("drum")
    assert isinstance(plain, partial)
    assert given(plain) == {}
    assert plain("XL")["size"] == "XL"
    assert toys.get("drum:beats=7,loud=1e-3")(1)["beats"] == 7
    assert given(toys.get(" drum : beats = 7 , loud = 1e-3 ")) == {"beats": 7, "loud": 1e-3}
    assert given(toys.get("drum:")) == {}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beats=12", 12),
        ("beats=-3", -3),
        ("loud=2", 2.0),
        ("loud=1e-4", 1e-4),
        ("big=true", True),
        ("big=False", False),
        ("rolls=64-128-256", (64, 128, 256)),
        ("rolls=8", (8,)),
        ("rolls=", ()),
        ("kind=bass", "bass"),
        ("label=yours", "yours"),
        ("limit=5", 5),
        ("limit=none", None),
    ],
)
def test_types(toys, option, value):
    (read,) = given(toys.get(f"drum:{option}")).values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("drumm", r"^unknown toy 'drumm'; did you mean 'drum'\? Known: doll, drum" + MORE + "$"),
        ("", "^unknown toy ''; Known: doll, drum" + MORE + "$"),
        ("drum:beat=3", r"^unknown option of toy drum 'beat'; did you mean 'beats'\? Known: beats, big, kind, label, "),
        ("drum:hook=3", "unknown option of toy drum 'hook'"),
        ("drum:size=3", "unknown option of toy drum 'size'"),
        ("drum:beats", "^toy 'drum:beats': write beats=VALUE, for example beats=4$"),
        ("drum:rolls", "write rolls=VALUE, for example rolls=64-128$"),
        ("drum:big", "write big=VALUE, for example big=false$"),
        ("drum:beats=x", "beats takes a whole number, got 'x'; for example 4$"),
        ("drum:beats=1.5", "beats takes a whole number, got '1.5'"),
        ("drum:loud=x", "loud takes a number, got 'x'; for example 0.5$"),
        ("drum:loud=", "loud takes a number, got ''"),
        ("drum:big=yes", "big takes true or false, got 'yes'"),
        ("drum:rolls=8-x", "rolls takes a whole number, got 'x'; for example 64-128$"),
        ("drum:kind=base", r"kind 'base'; did you mean 'bass'\? Known: bass, snare$"),
    ],
)
def test_mistakes_are_told_in_one_line(toys, spec, message):
    with pytest.raises(InputError, match=message) as error:
        toys.get(spec)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_sampler_specs():
    assert given(registry.sampler.get("ddim:eta=0.5")) == {"eta": 0.5}
    for spec, message in [
        ("ddim:eta=x", "^sampler 'ddim:eta=x': eta takes a number, got 'x'; for example 0.0$"),
        ("ddim:eta", "^sampler 'ddim:eta': write eta=VALUE, for example eta=0.0$"),
        ("ddim:etta=1", r"^unknown option of sampler ddim 'etta'; did you mean 'eta'\? Known: eta$"),
        ("ddin", r"^unknown sampler 'ddin'; did you mean 'ddim'\? Known: .*ddim, ddpm"),
        ("dpmpp_2m:eta=1", "^unknown option of sampler dpmpp_2m 'eta'; Known: none$"),
    ]:
        with pytest.raises(InputError, match=message):
            registry.sampler.get(spec)


def test_did_you_mean_only_when_near():
    assert str(unknown("fruit", "aple", ["pear", "apple"])) == (
        "unknown fruit 'aple'; did you mean 'apple'? Known: apple, pear"
    )
    assert str(unknown("fruit", "xyz", ["pear", "apple"])) == "unknown fruit 'xyz'; Known: apple, pear"


def test_describe(toys):
    assert toys.describe() == [
        ("doll", "eyes=2", ""),
        ("drum", "beats=4,loud=0.5,big=false,rolls=64-128,kind=snare,label=mine,limit=none", "Make a noise."),
    ]
    assert toys.names() == ["doll", "drum"]


def test_a_class_is_registered_as_it_is(toys):
    assert toys.get("doll:eyes=3")().eyes == 3
    assert toys.entries["doll"].__name__ == "Doll"


@pytest.mark.parametrize("kind", EVERY)
def test_described_defaults_are_read_back(kind):
    """What `describe` prints is a spec, and every entry says what it is."""
    rows = EVERY[kind].describe()
    assert rows
    for name, defaults, says in rows:
        made = EVERY[kind].get(f"{name}:{defaults}")
        assert made.func is EVERY[kind].entries[name]
        assert made.keywords == {key: default for key, (_, default) in options_of(made.func).items()}
        assert says


@pytest.mark.parametrize("value", [3, 0.25, 1e-4, True, False, (4,), (64, 128), None, "word"])
def test_show_is_the_inverse_of_parse(value):
    hint = tuple[int, ...] if isinstance(value, tuple) else int | None if value is None else type(value)
    assert parse_value(format_value(value), hint, "here", value) == value


def test_registries_import_their_own_home():
    assert {"ddim", "ddpm", "dpmpp_2m"} <= set(registry.sampler.names())
    assert {"linear", "cosine"} <= set(registry.schedule.names())
    assert {"trailing", "leading", "linspace"} <= set(registry.spacing.names())
    assert {"eps", "x0", "v"} <= set(registry.target.names())
    assert "unet" in registry.backbone.names()
    assert "simple" in registry.objective.names()


def test_an_option_without_a_type_is_no_option(toys):
    """A sampler may be written without annotations on what is not an option."""

    @toys
    def kite(*, tail: int = 3, string=None):
        return tail, string

    assert options_of(kite) == {"tail": (int, 3)}
    assert toys.get("kite:tail=4")() == (4, None)


def test_an_option_is_given_once():
    with pytest.raises(InputError, match="eta is given twice"):
        registry.sampler.get("ddim:eta=0.1,eta=0.7")


def own_sampler(denoise, x, levels, *, randn_like, pull: float = 0.5):
    yield


class OwnNetwork(torch.nn.Module):
    def __init__(self, channels: int, *, width: int = 4) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(channels, channels, 1)
        self.width = width


def test_a_callable_means_the_same_as_its_spec():
    for given, spec in [
        (ddim, "ddim"),
        (partial(ddim, eta=0.5), "ddim:eta=0.5"),
        (partial(partial(ddim, eta=0.1), eta=0.5), "ddim:eta=0.5"),
    ]:
        assert registry.sampler.text(given) == spec
        assert registry.sampler.text(spec) == spec
        made, read = registry.sampler.get(given), registry.sampler.get(spec)
        assert made.func is read.func is ddim
        assert made.keywords == read.keywords
        assert registry.sampler.settings(given) == registry.sampler.settings(spec)
        assert registry.sampler.declared(given) == registry.sampler.declared(spec) != {}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (partial(ddim, eta="x"), "^sampler ddim: eta takes a number, got 'x'$"),
        (partial(ddim, etta=1), "^unknown option of sampler ddim 'etta'; did you mean 'eta'"),
        (partial(ddim, 0.5), "^sampler ddim: give its options by name"),
    ],
)
def test_mistakes_in_callables_are_told_in_one_line(given, says):
    with pytest.raises(InputError, match=says):
        registry.sampler.get(given)


def test_the_size_of_an_option_is_bounded_for_callables_too():
    network = registry.backbone.entries["unet"]
    with pytest.raises(InputError, match="widths is at most 4096, got 5000-5000"):
        registry.backbone.get(partial(network, widths=(5000, 5000)))


def test_an_own_function_is_taken_without_being_registered():
    text = f"{__name__}:own_sampler"
    with pytest.raises(InputError, match="unknown sampler"):
        registry.sampler.get(f"{__name__}:never_given")
    assert registry.sampler.text(own_sampler) == text
    assert registry.sampler.text(partial(own_sampler, pull=0.1)) == f"{text}:pull=0.1"
    assert registry.sampler.get(own_sampler).func is own_sampler
    assert registry.sampler.get(f"{text}:pull=0.1").keywords == {"pull": 0.1}  # it was given before
    assert registry.sampler.settings(own_sampler) == {"pull": 0.5}
    assert registry.sampler.declared(own_sampler) == {}


def test_an_own_function_that_is_gone_is_not_kept():
    def short_lived(denoise, x, levels, *, randn_like):
        yield

    text = registry.sampler.text(short_lived)
    assert registry.sampler.get(text).func is short_lived
    del short_lived
    gc.collect()
    with pytest.raises(InputError, match="unknown sampler"):
        registry.sampler.get(text)


def test_a_function_of_ones_own_can_declare_facts(monkeypatch):
    monkeypatch.setattr(registry.sampler, "entries", dict(registry.sampler.entries))
    monkeypatch.setattr(registry.sampler, "facts", dict(registry.sampler.facts))

    @registry.sampler.declare(order=1, evaluations=1)
    def careful(denoise, x, levels, *, randn_like):
        yield

    assert registry.sampler.text(careful) == "careful"
    assert registry.sampler.declared(careful) == registry.sampler.declared("careful") == {"order": 1, "evaluations": 1}


def test_a_wrapper_of_an_entry_is_not_the_entry():
    @wraps(ddim)
    def mine(*given, **options):
        return ddim(*given, **options)

    assert ":" in registry.sampler.text(mine)
    assert registry.sampler.get(mine).func is mine


def test_a_network_may_be_given_as_an_instance():
    own = OwnNetwork(3, width=8)
    assert registry.backbone.text(own) == f"{__name__}:OwnNetwork"
    copied = registry.backbone.get(own)(3, 0, None)
    assert copied is not own
    assert torch.equal(copied.layer.weight, own.layer.weight)
    unet = registry.backbone.get("unet:widths=8-16,layers=1,groups=4")(3)
    assert registry.backbone.text(unet) == "unet:widths=8-16,layers=1,groups=4"


def test_the_class_of_a_network_is_found_in_modules_that_are_imported_and_nowhere_else():
    assert registry.backbone.get("torch.nn.modules.conv:Conv2d").func is torch.nn.Conv2d
    before = set(sys.modules)
    for stranger in ("os:abort", "os:system", "antigravity:Net", "torch.nn:functional.relu", "torch.nn:Missing"):
        with pytest.raises(InputError, match="unknown backbone"):
            registry.backbone.get(stranger)
    assert set(sys.modules) == before
