import re
import warnings

import pytest

from tasks.data.problems import BadInput, Problems


def test_every_problem_is_in_one_report():
    problems = Problems("clips.csv")
    problems.add("clips.csv row 2 (a.wav)", "file does not exist")
    problems.add("clips.csv row 5 (b.wav)", "is silent")
    with pytest.raises(BadInput) as caught:
        problems.finish(total=9)
    assert str(caught.value).splitlines() == [
        "clips.csv: 2 problems found",
        "  clips.csv row 2 (a.wav): file does not exist",
        "  clips.csv row 5 (b.wav): is silent",
        "Correct them, or leave these samples out with --data.on_bad skip.",
    ]


def test_nothing_wrong_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Problems("clips.csv").finish(total=9)


def test_skip_warns_with_the_list():
    problems = Problems("clips.csv", on_bad="skip")
    problems.add("row 2", "file does not exist")
    problems.add("row 2", "has no label")
    with pytest.warns(UserWarning, match=re.escape("clips.csv: 1 of 9 samples left out\n  row 2: file does not exist")):
        problems.finish(total=9)


def test_skip_needs_something_left():
    problems = Problems("clips.csv", on_bad="skip")
    problems.add("row 1", "is silent")
    with pytest.raises(BadInput, match="No usable sample is left"):
        problems.finish(total=1)


def test_what_skipping_does_not_repair_is_raised():
    problems = Problems("clips.csv", on_bad="skip")
    problems.stop("class oboe", "has no training sample")
    with pytest.raises(BadInput, match="class oboe: has no training sample\nCorrect them: they cannot be skipped"):
        problems.finish(total=9)
