"""The feature table's plugin: ids that are no rows, claims without tests, and the printed table."""

from __future__ import annotations

import pytest

from tests.support.features import FEATURES

CLAIMED = [row.id for row in FEATURES.values() if row.claimed]
UNCLAIMED = next(row.id for row in FEATURES.values() if not row.claimed)


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project of its own whose tests are tied to the table."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers = feature(*ids): rows")
    pytester.makeconftest('pytest_plugins = ["tests.support.features"]')
    return pytester


def run(project: pytest.Pytester, *rows: str, options: tuple[str, ...] = ()) -> pytest.RunResult:
    project.makepyfile(f"import pytest\n\n@pytest.mark.feature(*{rows!r})\ndef test_it(): raise SystemExit(9)")
    return project.runpytest_inprocess("-p", "no:cacheprovider", *options)


def test_an_id_that_is_no_row_stops_the_run(project: pytest.Pytester) -> None:
    result = run(project, "S01", "S99")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it names the feature row 'S99', which does not exist"])


def test_a_claim_without_a_test_fails_the_check(project: pytest.Pytester) -> None:
    unproved, *proved = CLAIMED
    result = run(project, *proved, options=("--features=check",))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"{unproved} is claimed and no test names it: *"])
    result.stdout.no_fnmatch_line(f"{proved[0]} is claimed*")


def test_claims_that_tests_name_pass_the_check_and_nothing_is_run(project: pytest.Pytester) -> None:
    result = run(project, *CLAIMED, options=("--features=check",))
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*is claimed*")


def test_the_table_counts_tests_before_any_is_deselected(project: pytest.Pytester) -> None:
    result = run(project, *CLAIMED, UNCLAIMED, options=("--features=table", "-m", "not feature"))
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            f"{CLAIMED[0]}  yes          1  *",
            "*::test_it",
            f"{UNCLAIMED}  -            1  *",
            f"{len(FEATURES)} rows, {len(CLAIMED)} claimed, {len(CLAIMED) + 1} named by tests",
        ]
    )
