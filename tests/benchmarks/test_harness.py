"""The harness counts right. These run with all other tests; nothing here is timed."""

from __future__ import annotations

import pytest

from tests.benchmarks.harness import Figure, Report, Series, percentile, ratios


def test_a_series_is_its_median_and_its_spread() -> None:
    assert Series.of([3.0, 1.0, 2.0]).median == 2.0
    assert Series.of([3.0, 1.0, 2.0]).text(1) == "2.0 (1.0-3.0)"
    with pytest.raises(ValueError, match="nothing"):
        Series.of([])


def test_ratios_are_taken_run_by_run() -> None:
    assert ratios([1.0, 4.0, 9.0], [2.0, 4.0, 6.0]).values == (0.5, 1.0, 1.5)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 5), (51, 6), (99, 10), (100, 10)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile(range(10, 0, -1), percent) == value


@pytest.mark.parametrize(("better", "value", "kept"), [("more", 0.9, True), ("more", 0.89, False), ("less", 0.9, True)])
def test_a_missed_promise_is_said(better: str, value: float, kept: bool, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    figure = Figure(name="x", series=Series.of([value]), promise=0.9, better="more" if better == "more" else "less")
    report.add(figure)
    assert figure.kept is kept
    assert ("MISSED" not in report.text()) is kept
    assert "promised" in capsys.readouterr().out
