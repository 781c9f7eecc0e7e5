"""Long recordings: read piece by piece, encoded chunk by chunk, with the numbers of one pass; windows of them."""

import csv
import itertools

import numpy as np
import pytest
import soundfile
import torch
from recordings import SPEC

from tasks.audio import AudioTask
from tasks.audio.clips import read_clip
from tasks.audio.stream import Stream
from tasks.audio.windows import windows_of
from tasks.data.problems import BadInput
from tasks.outputs.events import Event, events_above, write_events
from tasks.task.decisions import decide


class Wave(torch.nn.Module):
    """Takes samples; ``norm`` looks at the whole clip."""

    waveform, layout = True, "b c t"

    def __init__(self, norm=False):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv1d(1, 6, 10, 5), torch.nn.InstanceNorm1d(6) if norm else torch.nn.BatchNorm1d(6),
            torch.nn.ReLU(), torch.nn.Conv1d(6, 8, 9, 8),
        )  # fmt: skip

    def forward(self, wave):
        return self.layers(wave[:, None])


def task(**options):
    torch.manual_seed(0)
    known = {} if "encoder" in options else {"widths": [4, 6]}
    made = AudioTask(SPEC, mels=24, hop_ms=10, pattern_s=0.1, **known, **options).eval()
    for module in made.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return made


@pytest.fixture
def recording(tmp_path):
    """Five seconds in stereo at another rate: noise, two tones, a loud click near the end."""
    draw = np.random.default_rng(0)
    time = np.arange(5 * 22050) / 22050
    wave = 0.01 * draw.standard_normal((len(time), 2))
    wave[20000:40000, 0] += 0.2 * np.sin(2 * np.pi * 440 * time[20000:40000])
    wave[60000:70000] += 0.1 * np.sin(2 * np.pi * 1760 * time[60000:70000])[:, None]
    wave[100000:100050] += 0.6
    path = tmp_path / "long.flac"
    soundfile.write(path, wave, 22050)
    return path


@pytest.mark.parametrize("rate", [22050, 16000, 44100, 8000])
def test_pieces_are_the_whole(recording, rate):
    whole, stream = read_clip(recording, sample_rate=rate), Stream(recording, rate)
    assert len(stream) == len(whole)
    pieces = [stream.read(first, min(first + 7001, len(stream))) for first in range(0, len(stream), 7001)]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-6)
    beyond = stream.read(-100, 200)
    assert not beyond[:100].any()
    torch.testing.assert_close(beyond[100:], whole[:200], rtol=0, atol=1e-6)
    assert not stream.read(len(stream) + 5, len(stream) + 9).any()


OWN = {"encoder": f"{__name__}.Wave", "pool": "time"}


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "time"},
        {"pool": "time", "reduction": "max", "relative": True, "onsets": True},
        {"pool": "time", "reduction": "attention", "heads": 2},
        {"pool": "time", "mfcc": 12, "relative": True},
        {"pool": "frequency"},
        {"pool": "both", "reduction": "power"},
        {"pool": "both", "reduction": "attention", "grid": [3, 3]},
        OWN,
    ],
    ids=str,
)
def test_chunks_give_the_logit_and_the_map_of_one_pass(recording, options):
    made = task(**options)
    once = made.read(str(recording))
    made.tile = 0.6
    chunked = made.read(str(recording))
    assert "wave" not in chunked
    assert len(chunked["long"][0].parts.tiles) == 9
    with torch.no_grad():
        torch.testing.assert_close(made(chunked), made(once), rtol=0, atol=1e-4)
    ((first,), (expected,)), ((second,), (found,)) = (decide(made, batch) for batch in (once, chunked))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert second.missing == pytest.approx(first.missing, abs=1e-3)


@pytest.mark.parametrize("options", [{**OWN, "encoder_args": {"norm": True}}, {"standardise": True}], ids=str)
def test_a_network_that_looks_at_the_whole_is_said(recording, capsys, options):
    made = task(**options)
    made.tile = 0.6
    with torch.no_grad():
        assert made(made.read(str(recording))).isfinite().all()
    said = capsys.readouterr().out
    assert "long.flac: the network looks at the whole of what it is given" in said
    assert "chunks of 0.6 s do not give quite the logit of one pass; --tile SECONDS" in said


def test_what_is_wrong_in_the_middle_is_found(tmp_path):
    made, path = task(), tmp_path / "nan.wav"
    made.tile = 0.5
    wave = np.zeros(40000, np.float32)
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    with pytest.raises(BadInput, match=r"nan.wav: silent: every sample is zero; choose another file"):
        made(made.read(str(path)))
    wave[30000] = np.nan
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    with pytest.raises(BadInput, match=r"nan.wav: at sample \d+: 1 samples are NaN or inf; export the file again"):
        made(made.read(str(path)))


def test_windows_are_clips_of_their_own(recording):
    made = task()
    whole = read_clip(recording, sample_rate=16000)
    begins, ends, batches = zip(*made.windows(str(recording), 1.2, 0.5), strict=True)
    begins, ends = (list(itertools.chain(*some)) for some in (begins, ends))
    assert begins == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 3.8]  # the last one ends with the recording
    assert [end - begin for begin, end in zip(begins, ends, strict=True)] == pytest.approx([1.2] * 9)
    assert batches[0]["id"][:2] == ["long.flac@0.000", "long.flac@0.500"]
    waves = torch.cat([batch["wave"] for batch in batches])
    for begin, wave in zip(begins, waves, strict=True):
        start = round(begin * 16000)
        torch.testing.assert_close(wave, whole[start : start + 19200], rtol=0, atol=1e-6)
    (short,) = windows_of(Stream(recording, 16000), 60, 1)
    assert short[:2] == ([0], [5])
    with pytest.raises(BadInput, match=r"expected --window and --hop in seconds, longer than a sample, got 1 and -1"):
        next(windows_of(Stream(recording, 16000), 1, -1))


def test_events_are_where_windows_are_above(tmp_path):
    curve = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.9], [0.8, 0.1]])
    found = events_above("x.wav", [0, 1, 2, 3], [2, 3, 4, 5], curve, ["dog", "cat"], 0.5)
    assert found == [
        Event("x.wav", 0, 1.5, "dog"),
        Event("x.wav", 1.5, 3.5, "cat"),
        Event("x.wav", 2.5, 5, "dog"),
    ]
    write_events(tmp_path / "events.txt", found)
    first, *_ = (tmp_path / "events.txt").read_text().splitlines()
    assert first == "x.wav\t0.000\t1.500\tdog"


@pytest.fixture
def trained(tmp_path):
    made = task(reduction="max")
    path = tmp_path / "a.ckpt"
    state = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    torch.save({**state, "pytorch-lightning_version": "2.6.0"}, path)
    (tmp_path / "a.yaml").write_text("model: {class_path: tasks.audio.AudioTask}")
    return ["-c", str(tmp_path / "a.yaml"), "--ckpt_path", str(path), "--output", str(tmp_path / "out")], made


def test_files_from_the_command_line(recording, trained, tmp_path, capsys):
    from tasks.__main__ import main
    from tasks.search.table import read_table

    flags, made = trained
    out = tmp_path / "out"
    main(["predict", *flags, "--input", str(recording), "--window", "1", "--hop", "0.5", "--threshold", "0.3"])
    rows = list(csv.DictReader((out / "curve.csv").open()))
    assert [float(row["onset"]) for row in rows] == [i / 2 for i in range(9)]
    windows = torch.cat([batch["wave"] for _, _, batch in made.windows(str(recording), 1, 0.5)])
    with torch.no_grad():
        logits = made({"wave": windows, "lengths": torch.full((9,), 16000)})
    found = torch.tensor([[float(row[f"p({name})"]) for name in "abc"] for row in rows])
    torch.testing.assert_close(found, made.predictions(logits), rtol=0, atol=1e-4)
    assert (out / "long.flac_curve.png").stat().st_size > 10_000
    for line in (out / "events.txt").read_text().splitlines():
        name, onset, offset, label = line.split("\t")
        assert name == "long.flac"
        assert 0 <= float(onset) < float(offset) <= 5
        assert label in ("a", "b", "c")

    main(["predict", *flags, "--input", str(recording), "--tile", "0.6"])
    (row,) = csv.DictReader((out / "predictions.csv").open())
    with torch.no_grad():
        whole = made.predictions(made(made.read(str(recording))))[0]
    assert [float(row[f"p({name})"]) for name in "abc"] == pytest.approx(whole.tolist(), abs=1e-4)

    main(["embed", *flags, "--input", str(recording), "--window", "1", "--format", "npz"])
    table = read_table(out / "embeddings.npz")
    assert table.ids[:2] == ["long.flac@0.000", "long.flac@0.500"]
    assert table.columns["offset"][:2] == [1, 1.5]
    assert table.about["shape"] == [6, 24]
    main(["embed", *flags, "--input", str(recording), "--tile", "0.6", "--format", "npz"])
    with torch.no_grad():
        expected = made.pooled(made.read(str(recording)))[0].flatten().numpy()
    np.testing.assert_allclose(read_table(out / "embeddings.npz").vectors[0], expected, atol=1e-4)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tile=0"], "expected a positive --tile, got 0"),
        (["--hop=1"], "expected --window beside --hop; give its length in seconds"),
        (["--window=0"], "expected --window and --hop in seconds, longer than a sample, got 0 and 0"),
        (["--window=1", "--threshold=2"], "expected a --threshold between 0 and 1, got 2"),
    ],
)
def test_options_that_make_no_sense(recording, trained, more, message):
    from tasks.__main__ import main

    with pytest.raises(SystemExit, match=message):
        main(["predict", *trained[0], "--input", str(recording), *more])


def test_who_has_no_time_has_no_windows():
    from toy import ToyData, ToyTask

    with pytest.raises(BadInput, match="ToyTask has no windows in time; leave --window out"):
        ToyTask(ToyData().spec).windows("a.txt", 1, 1)
