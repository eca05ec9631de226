import pytest

matplotlib = pytest.importorskip("matplotlib", reason="the plots extra is not installed")


@pytest.fixture(autouse=True)
def no_window():
    """Draw without a screen, and leave no figure open."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
