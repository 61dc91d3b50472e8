"""Shape-checked signatures, one thread and a fixed seed for every test."""

import gc
import shutil
import signal

from jaxtyping import config, install_import_hook

import unnoise.config  # noqa: F401  # before the hook: settings check themselves, and their errors are what users see

# Before all other modules of unnoise are imported; an int is a float here, as it is to mypy.
install_import_hook("unnoise", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import pytest  # noqa: E402
import torch  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"

torch.set_num_threads(1)  # for fixtures of a package too, which are made before `reproducible`


def pytest_collection_finish():
    """Leave what was imported out of every later garbage collection, which would else take most of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def reproducible():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Shapes are not checked, which is half of the time: the test repeats much that other tests check."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "jaxtyping_disable", True)
        yield


@pytest.fixture(scope="session", autouse=True)
def usual_signals():
    """Signals mean what they usually do, though a background job of a script, or nohup, starts with some ignored."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        if hasattr(signal, name) and signal.getsignal(number := getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or fills the cache of the user, except a test that names another cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def float64():
    """New tensors and networks are float64, so that agreement is limited by the algorithm and not by rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session", autouse=True)
def one_plot():
    """A training plots its loss once, at its end, since a plot takes longer than all steps of a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unnoise.training.log.PLOT_SHARE", -1.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_ladder():
    """The damage ladder of every evaluation takes few images, since it would take most of the time of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unnoise.evaluation.ladder.MOST", 10)
        yield


@pytest.fixture(scope="session")
def browser():
    """Return Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())
        yield browser
        browser.close()
